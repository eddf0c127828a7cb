// Package spelling finds the name that was probably meant by one that does not
// exist: a key of a configuration, a command, an option, a user.
package spelling

import "strings"

// longest is the length beyond which a name is no typing error of another.
const longest = 64

// Nearest returns the candidate that differs least from name, or false when none
// comes near: about one change for every three letters is near. Upper case,
// hyphens and underscores make no difference.
func Nearest(name string, candidates []string) (string, bool) {
	if len(name) > longest {
		return "", false
	}
	best, least := "", len(name)
	for _, c := range candidates {
		d := distance(fold(name), fold(c))
		if d < least || d == least && best != "" && c < best {
			best, least = c, d
		}
	}
	return best, best != "" && least <= max(1, min(len(name), len(best))/3)
}

// fold makes spellings equal that people mix up.
func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// distance counts the insertions, deletions, replacements and swaps of neighbours
// that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, previous := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}

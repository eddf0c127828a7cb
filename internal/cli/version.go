package cli

import (
	"runtime/debug"
	"strings"
)

// version is set by the linker: -X …/internal/cli.version=v1.2.3.
var version string

// Version is the version of this build: the one the linker was told, or what the
// Go tool recorded.
func Version() string {
	if version != "" {
		return strings.TrimPrefix(version, "v")
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return versionFrom(info)
}

func versionFrom(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	revision, modified := "", false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if revision == "" {
		return "unknown"
	}
	v := "devel-" + revision[:min(12, len(revision))]
	if modified {
		v += "-modified"
	}
	return v
}

package profile

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

// MaxSize is the largest profile that is read, in octets.
const MaxSize = config.MaxSize

// Parse reads a profile. The name, a file's usually, appears in errors. The error
// holds all problems at once (config.AsProblems). Values that begin with "file:"
// are read from the files they name; relative names start at the directory of
// name, so a parsed profile is self-contained.
func Parse(name string, data []byte, checks ...Check) (*Profile, error) {
	p, _, err := parse(name, data, checks)
	return p, err
}

// Check is a further check of a profile, by those who use it; what it finds is
// reported with all the rest.
type Check func(*Profile, *config.Problems)

// Load reads the profile at path. The warnings are for the user; they stop nothing.
func Load(path string, checks ...Check) (p *Profile, warnings []string, err error) {
	data, err := config.ReadFile(path, MaxSize)
	if err != nil {
		return nil, nil, fmt.Errorf("read profile: %w", err)
	}
	return parse(path, data, checks)
}

func parse(name string, data []byte, checks []Check) (*Profile, []string, error) {
	p := New("")
	doc, err := config.Parse(name, data, p)
	if doc == nil {
		return nil, nil, err
	}
	if p.Name == "" {
		// A file called alice.toml is the profile alice.
		p.Name = strings.TrimSuffix(filepath.Base(name), ".toml")
	}
	p.ReadFiles("", filepath.Dir(name), doc.Problems())
	p.Check("", doc.Problems())
	for _, check := range checks {
		check(p, doc.Problems())
	}
	if err := doc.Problems().Err(); err != nil {
		p.Zero()
		return nil, nil, err
	}
	return p, doc.Warnings(), nil
}

// filePrefix begins a value that names a file.
const filePrefix = "file:"

// maxPEM is the largest certificate file that is read.
const maxPEM = 256 << 10

// ReadFiles replaces the certificates given as "file:" with the files' content.
// Relative names start at dir; keys in problems begin with prefix. (The secrets
// have been read by package config.)
func (p *Profile) ReadFiles(prefix, dir string, problems *config.Problems) {
	for key, text := range map[string]*string{
		"auth.ca": &p.Auth.CA, "auth.certificate": &p.Auth.Certificate,
		"auth.chain": &p.Auth.Chain, "auth.crl": &p.Auth.CRL,
	} {
		path, isFile := strings.CutPrefix(*text, filePrefix)
		if !isFile {
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		data, err := config.ReadFile(path, maxPEM)
		if err != nil {
			problems.Add(prefix+key, "%v", err)
			*text = ""
			continue
		}
		*text = string(data)
	}
}

// errNotText is returned for secrets that a TOML file cannot hold.
var errNotText = errors.New("is not UTF-8 text and cannot be written into a profile")

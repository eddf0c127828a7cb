package client

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/service"
)

// Default places.
const (
	DefaultConfigFile = "/etc/wayfarer/client.toml"
	DefaultProfileDir = "/etc/wayfarer/profiles"
	DefaultStateDir   = "/var/lib/wayfarer/client"
	DefaultSocket     = "/run/wayfarer/client.sock"
	DefaultInterface  = "wf0"
	defaultResolvConf = "/etc/resolv.conf"
)

// Config is the daemon's configuration. Every key has a default; most machines need
// no file.
type Config struct {
	// ProfileDir holds the profiles, StateDir what must survive a crash.
	ProfileDir string `toml:"profile_dir"`
	StateDir   string `toml:"state_dir"`
	// Socket is the control socket, SocketGroup who may use it besides root.
	Socket      string `toml:"socket"`
	SocketGroup string `toml:"socket_group"`
	// Interface is the name of the tunnel's interface.
	Interface string `toml:"interface"`
	// DataPath says who seals and opens packets: the kernel ("xfrm"), this process
	// ("tun"), or the kernel where it can ("auto").
	DataPath string `toml:"datapath"`
	// Autoconnect is the profile that is brought up when the daemon starts.
	Autoconnect string `toml:"autoconnect"`
	// Port and NATTPort are the local UDP ports. When they are taken, others are used;
	// zero asks for others at once.
	Port     uint16 `toml:"port"`
	NATTPort uint16 `toml:"natt_port"`
	// ResolvConf is the resolver's configuration.
	ResolvConf string `toml:"resolv_conf"`
	// Netfilter adds the guard of package guard to the routing rules.
	Netfilter bool `toml:"netfilter"`

	Log service.LogConfig `toml:"log"`

	// Profile may stand in the file itself.
	Profile *profile.Profile `toml:"profile"`
}

// NewConfig returns the defaults.
func NewConfig() *Config {
	return &Config{
		ProfileDir: DefaultProfileDir, StateDir: DefaultStateDir, Socket: DefaultSocket,
		Interface: DefaultInterface, DataPath: string(datapath.Auto), ResolvConf: defaultResolvConf, Port: 500, NATTPort: 4500, Netfilter: true,
		Log: service.DefaultLog(),
	}
}

// LoadConfig reads the configuration at path. A missing file is an error unless
// optional: then the defaults hold.
func LoadConfig(path string, optional bool, now time.Time) (*Config, []string, error) {
	c := NewConfig()
	// A profile within the file gets its defaults first, as one of its own does.
	c.Profile = profile.New("")
	doc, err := config.Load(path, c)
	if optional && errors.Is(err, fs.ErrNotExist) {
		c.Profile = nil
		return c, nil, nil
	}
	if doc == nil {
		return nil, nil, err
	}
	warnings := doc.Warnings()
	if !doc.Defined("profile") {
		c.Profile = nil
	}
	c.check(doc.Problems())
	if c.Profile != nil {
		warnings = append(warnings, c.checkProfile(path, now, doc.Problems())...)
	}
	if err := doc.Problems().Err(); err != nil {
		return nil, nil, err
	}
	return c, warnings, nil
}

// inlinePrefix is the table of a profile within the daemon's file.
const inlinePrefix = "profile."

func (c *Config) checkProfile(path string, now time.Time, problems *config.Problems) []string {
	if c.Profile.Name == "" {
		c.Profile.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	c.Profile.ReadFiles(inlinePrefix, filepath.Dir(path), problems)
	c.Profile.Check(inlinePrefix, problems)
	_, warnings := Policy(c.Profile, now, inlinePrefix, problems)
	return warnings
}

// interfacePattern is what Linux takes as the name of an interface, and people can
// type.
var interfacePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,14}$`)

func (c *Config) check(problems *config.Problems) {
	for key, path := range map[string]string{
		"profile_dir": c.ProfileDir, "state_dir": c.StateDir, "socket": c.Socket, "resolv_conf": c.ResolvConf,
	} {
		if !filepath.IsAbs(path) {
			problems.Add(key, "%q is not an absolute path", path)
		}
	}
	if !interfacePattern.MatchString(c.Interface) {
		problems.Add("interface", "%q cannot be the name of an interface: up to 15 letters and digits, beginning with a letter", c.Interface)
	}
	if _, err := datapath.ParseMode(c.DataPath); err != nil {
		problems.Add("datapath", "%v", err)
	}
	if c.Autoconnect != "" {
		if err := profile.CheckName(c.Autoconnect); err != nil {
			problems.Add("autoconnect", "%v", err)
		}
	}
	if c.Port == c.NATTPort && c.Port != 0 {
		problems.Add("natt_port", "must differ from port")
	}
	c.Log.Check(func(key string, err error) { problems.Add("log."+key, "%v", err) })
}

// LogLevel is the level of the log; the configuration has been checked.
func (c *Config) LogLevel() slog.Level {
	level, _ := service.ParseLevel(c.Log.Level)
	return level
}

// Store is where the profiles are.
func (c *Config) Store() Store { return Store{c.ProfileDir} }

// interfaceTaken says whether an interface of that name exists already.
func interfaceTaken(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

package config

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ReadFile reads a regular file of at most limit octets. It does not wait on a pipe and
// does not read devices, whatever the name is turned into meanwhile.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		clear(data)
		return nil, err
	}
	if int64(len(data)) > limit {
		clear(data)
		return nil, fmt.Errorf("%s is larger than %d octets", path, limit)
	}
	return data, nil
}

// BeyondConfinedRoot warns of a file that root can read here, but not as a system
// service: the units leave root no power over the permissions of files
// (CAP_DAC_OVERRIDE). It is empty where that is no matter.
func BeyondConfinedRoot(path string) string {
	var st unix.Stat_t
	if os.Geteuid() != 0 || unix.Stat(path, &st) != nil {
		return ""
	}
	class := uint32(0o004)
	switch {
	case st.Uid == 0:
		class = 0o400
	case st.Gid == 0:
		class = 0o040
	}
	if st.Mode&class != 0 {
		return ""
	}
	return fmt.Sprintf("%s belongs to user %d and has mode %04o: the system service cannot read it; run chown root %s", path, st.Uid, st.Mode&0o7777, path)
}

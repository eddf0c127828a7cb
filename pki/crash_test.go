package pki

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
)

// crashDir names, for the child process of TestKilledInTheMiddle, the authority to
// change until it is killed.
const crashDir = "WAYFARER_TEST_PKI_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		issueForEver(dir)
	}
	os.Exit(m.Run())
}

// issueForEver prints what it is sure of.
func issueForEver(dir string) {
	a, err := Open(dir)
	for i := 0; err == nil; i++ {
		var b *Bundle
		if b, err = a.IssueClient(fmt.Sprintf("user%d@example.test", i), IssueOptions{}); err != nil {
			break
		}
		fmt.Println("issued", b.Issued.Serial)
		if _, err = a.Revoke(b.Issued.Serial, KeyCompromise); err == nil {
			fmt.Println("revoked", b.Issued.Serial)
		}
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// A process that is killed at any moment leaves a whole authority, with all that
// it reported.
func TestKilledInTheMiddle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a := must[*Authority](t)(Create(dir, Options{Name: "Test CA"}))
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var issued, revoked []string
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			what, serial, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "issued":
				issued = append(issued, serial)
			case "revoked":
				revoked = append(revoked, serial)
			default:
				t.Fatalf("child: %s", lines.Text())
			}
			// Somewhere in the middle of the next change, wherever that is.
			if len(issued)+len(revoked) == 3+round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child was not killed")
		}
		checkWhole(t, dir, issued, revoked)
	}
	if _, err := a.IssueClient("last@example.test", IssueOptions{}); err != nil {
		t.Errorf("after all: %v", err)
	}
}

func checkWhole(t *testing.T, dir string, issued, revoked []string) {
	t.Helper()
	a := must[*Authority](t)(Open(dir))
	listed := map[string]bool{}
	for _, c := range must[[]Certificate](t)(a.List()) {
		listed[c.Serial] = true
		certs := must[[]byte](t)(os.ReadFile(filepath.Join(dir, certsDir, c.Serial+".pem")))
		if _, err := auth.LoadCertificatesPEM(certs); err != nil {
			t.Errorf("certificate %s: %v", c.Serial, err)
		}
	}
	for _, serial := range issued {
		if !listed[serial] {
			t.Errorf("certificate %s is lost", serial)
		}
	}
	onList := map[string]bool{}
	for _, e := range currentList(t, a).RevokedCertificateEntries {
		onList[serialString(e.SerialNumber)] = true
	}
	for _, serial := range revoked {
		if !onList[serial] {
			t.Errorf("the revocation of %s is lost", serial)
		}
	}
}

// A full disk gives an error that says so, and leaves everything as it was. Needs
// root for a file system of its own.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	a := must[*Authority](t)(Create(filepath.Join(dir, "pki"), Options{Name: "Test CA"}))
	alice := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{})).Issued.Serial
	before := must[[]byte](t)(os.ReadFile(a.path(indexFile)))

	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	_, err := a.IssueClient("bob@example.test", IssueOptions{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("issue: %v", err)
	}
	if _, err := a.Revoke(alice, KeyCompromise); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("revoke: %v", err)
	}
	if after := must[[]byte](t)(os.ReadFile(a.path(indexFile))); string(after) != string(before) {
		t.Errorf("the index has changed:\n%s", after)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(alice, KeyCompromise); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if n := len(currentList(t, a).RevokedCertificateEntries); n != 1 {
		t.Errorf("%d revoked", n)
	}
}

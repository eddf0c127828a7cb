// Command wgpeer is one end of a WireGuard tunnel in userspace, to compare throughput
// with. Both ends know each other's key because both are made from the same seed. It is
// a tool for benchmarks and is not installed.
//
//	wgpeer DEVICE 1|2 LISTENPORT [ENDPOINT]
package main

import (
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wgpeer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 || args[1] != "1" && args[1] != "2" {
		return errors.New("usage: wgpeer DEVICE 1|2 LISTENPORT [ENDPOINT]")
	}
	own, err := key(args[1])
	if err != nil {
		return err
	}
	other, err := key(map[string]string{"1": "2", "2": "1"}[args[1]])
	if err != nil {
		return err
	}
	t, err := tun.CreateTUN(args[0], device.DefaultMTU)
	if err != nil {
		return err
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	defer d.Close()
	settings := fmt.Sprintf("private_key=%s\nlisten_port=%s\npublic_key=%s\nallowed_ip=0.0.0.0/0\n",
		hex.EncodeToString(own.Bytes()), args[2], hex.EncodeToString(other.PublicKey().Bytes()))
	if len(args) > 3 {
		settings += "endpoint=" + args[3] + "\n"
	}
	if err := d.IpcSet(settings); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	fmt.Println("ready")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	return nil
}

// key is the private key of one end.
func key(end string) (*ecdh.PrivateKey, error) {
	seed := sha256.Sum256([]byte("benchmark, end " + end))
	return ecdh.X25519().NewPrivateKey(seed[:])
}

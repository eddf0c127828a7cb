// Command nstool is what the namespace tests need besides the programs of the system:
// traffic with figures, a watch on the wire that finds inner packets in clear, and
// hostile senders. It is a tool for tests and is not installed.
//
// Every subcommand that runs until it is ended prints "ready" when it has begun and its
// figures when it gets SIGTERM.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// commands are the subcommands with what follows their names.
var commands = map[string]struct {
	usage string
	run   func(ctx context.Context, args []string) error
}{
	"field":    {"PATH... < JSON: the values at paths such as sessions.0.spi_i; # counts a list", field},
	"serve":    {"echo over UDP and TCP on port 7000, files over HTTP on port 8080", serve},
	"probe":    {"DST [SRC] [every=10ms]: UDP echoes; prints sent, lost, the longest gap and how long after SIGUSR1 the last was lost, in ms", probe},
	"stream":   {"DST [SRC] [size=OCTETS]: one TCP connection, a record each 50 ms; prints ok or broken, and the slowest record in ms", stream},
	"fetch":    {"URL: download it; prints octets, seconds and Mbit/s", fetch},
	"source":   {"DST: the address that DST sees us with", source},
	"hold":     {"SRC DST [DEVICE]...: sockets that keep sending from an inner address, whatever happens", hold},
	"watch":    {"DEVICE [clear=PREFIX] [to=PREFIX]...: count frames, inner packets in clear, packets to a prefix", watch},
	"record":   {"DEVICE FILE: keep the IP packets of UDP 500 and 4500 and of ESP", record},
	"replay":   {"FILE DST [from=ADDRESS]: send the recorded packets for DST again, as they were or from elsewhere", replay},
	"blast":    {"SRC DST COUNT [SPI]: hostile datagrams of every kind to ports 500 and 4500", blast},
	"flood":    {"DST COUNT PREFIX: well-formed IKE_SA_INIT requests, each from another address", flood},
	"oddities": {"SRC:PORT DST SPI_I SPI_R ESP_SPI: messages that have broken other implementations", oddities},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) < 2 || commands[os.Args[1]].run == nil {
		fmt.Fprintln(os.Stderr, "usage: nstool COMMAND ...")
		for name, c := range commands {
			fmt.Fprintf(os.Stderr, "  %s %s\n", name, c.usage)
		}
		os.Exit(2)
	}
	if err := commands[os.Args[1]].run(ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "nstool %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// atLeast complains about missing arguments.
func atLeast(n int, args []string) error {
	if len(args) < n {
		return fmt.Errorf("%d arguments are needed", n)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of /proc/stat, the same on every Linux.
const ticksPerSecond = 100

// times are CPU times in seconds.
type times struct{ user, system float64 }

func (t times) total() float64 { return t.user + t.system }

// parseStat reads user and system time of a process from its /proc/PID/stat. The
// name in brackets may hold anything.
func parseStat(stat string) (times, error) {
	at := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[at+1:])
	if at < 0 || len(fields) < 13 {
		return times{}, fmt.Errorf("not the stat of a process: %q", stat)
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		return times{}, fmt.Errorf("not the stat of a process: %q", stat)
	}
	return times{user / ticksPerSecond, system / ticksPerSecond}, nil
}

// parseMachine reads the user time of all programs from /proc/stat.
func parseMachine(stat string) (user float64, err error) {
	fields := strings.Fields(stat)
	if len(fields) < 3 || fields[0] != "cpu" {
		return 0, fmt.Errorf("not /proc/stat: %.40q", stat)
	}
	for _, f := range fields[1:3] { // user and nice
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, err
		}
		user += v
	}
	return user / ticksPerSecond, nil
}

// spent adds up what processes have used.
func spent(pids []int) (sum times) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		if t, err := parseStat(string(data)); err == nil {
			sum.user += t.user
			sum.system += t.system
		}
	}
	return sum
}

// ownUser is the user time of this program and of those it has started and waited for.
func ownUser() (sum float64) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += float64(u.Utime.Sec) + float64(u.Utime.Usec)/1e6
		}
	}
	return sum
}

func machineUser() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	user, _ := parseMachine(string(data))
	return user
}

// rss is the resident memory of processes in MiB.
func rss(pids []int) (mib float64) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), "\nVmRSS:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			kib, _ := strconv.ParseFloat(fields[0], 64)
			mib += kib / 1024
		}
	}
	return mib
}

// watcher notices other programs that compute.
type watcher struct {
	share    float64       // of a core that disturbs
	attempts int           // for one measurement
	patience time.Duration // to wait for an idle machine before each
	say      func(format string, args ...any)
}

// quiet runs measure when no other program computes, and again when one did
// meanwhile. It returns the outcome of the attempt that was disturbed least, and what
// share of a core others used during it.
func quiet[T any](ctx context.Context, w *watcher, pids []int, measure func() (T, error)) (best T, foreign float64, err error) {
	for i := range w.attempts {
		w.waitUntilIdle(ctx)
		all, own, began := machineUser(), ownUser()+spent(pids).user, time.Now()
		v, err := measure()
		if err != nil {
			return best, 0, err
		}
		used := (machineUser() - all) - (ownUser() + spent(pids).user - own)
		share := max(used/time.Since(began).Seconds(), 0)
		if i == 0 || share < foreign {
			best, foreign = v, share
		}
		if foreign <= w.share {
			break
		}
		w.say("  disturbed: other programs used %.2f of a core", share)
	}
	return best, foreign, nil
}

func (w *watcher) waitUntilIdle(ctx context.Context) {
	const look = 300 * time.Millisecond
	for end := time.Now().Add(w.patience); time.Now().Before(end) && ctx.Err() == nil; {
		before := machineUser()
		time.Sleep(look)
		if machineUser()-before <= w.share*look.Seconds()+1.0/ticksPerSecond {
			return
		}
	}
}

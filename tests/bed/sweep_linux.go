package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Concurrent beds. Each has the addresses of its number.
const mostBeds = 64

type state struct {
	number int
	path   string
	cgroup string
}

func stateOf(dir string, number int) state {
	return state{
		number: number,
		path:   filepath.Join(dir, "run", strconv.Itoa(number)),
		cgroup: fmt.Sprintf("devcluster-bed-%08x-%d", crc32.ChecksumIEEE([]byte(dir)), number),
	}
}

// Reserves the first number that no living bed uses, and removes what a dead one left under it. `up` and its watcher hold the
// lock.
func claimState(dir string) (state, *os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return state{}, nil, err
	}
	for number := range mostBeds {
		claimed := stateOf(dir, number)
		lock, err := os.OpenFile(claimed.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return state{}, nil, err
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			lock.Close()
			continue
		}
		if err := sweep(claimed); err != nil {
			return state{}, nil, fmt.Errorf("what an earlier bed left: %w", err)
		}
		return claimed, lock, os.MkdirAll(filepath.Join(claimed.path, "logs"), 0o755)
	}
	return state{}, nil, fmt.Errorf("%d beds are running", mostBeds)
}

type watcher struct {
	command *exec.Cmd
	alive   *os.File
}

// The watcher outlives this process: it detects its end by the pipe, and is in a separate session.
func startWatcher(of state, lock *os.File) (*watcher, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	log, err := os.Create(of.path + ".sweep.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(self, "watch", filepath.Dir(filepath.Dir(of.path)), strconv.Itoa(of.number))
	command.Stdin, command.Stdout, command.Stderr = read, log, log
	command.ExtraFiles = []*os.File{lock}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return &watcher{command, write}, command.Start()
}

func (w *watcher) end() error {
	w.alive.Close()
	return w.command.Wait()
}

func watch(args []string) error {
	_, _ = io.Copy(io.Discard, os.Stdin)
	number, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return sweep(stateOf(args[0], number))
}

// The file with the process id of init and its start time: the id alone may belong to another process now.
func noteInit(path string, pid int) error {
	return os.WriteFile(filepath.Join(path, "init"), fmt.Appendf(nil, "%d %s", pid, startTime(pid)), 0o600)
}

func startTime(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// Removes everything of a bed whose processes have ended or are ending. Its logs stay until the next bed.
func sweep(of state) error {
	if err := endInit(of.path); err != nil {
		return err
	}
	if err := removeCgroups(of.cgroup); err != nil {
		return err
	}
	logs := of.path + ".logs"
	if _, err := os.Stat(filepath.Join(of.path, "logs")); err == nil {
		_ = os.RemoveAll(logs)
		_ = os.Rename(filepath.Join(of.path, "logs"), logs)
	}
	return os.RemoveAll(of.path)
}

// When init has ended, so has every process of its namespace, with their mounts and network namespaces.
func endInit(path string) error {
	text, err := os.ReadFile(filepath.Join(path, "init"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	pid, started, _ := strings.Cut(string(text), " ")
	number, err := strconv.Atoi(pid)
	if err != nil {
		return nil
	}
	for range 200 {
		if now := startTime(number); now == "" || now != started {
			return nil
		}
		_ = syscall.Kill(number, syscall.SIGKILL)
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("process %d does not end", number)
}

func removeCgroups(name string) error {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, root := range roots {
		groups := []string{}
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- {
			if err := removeCgroup(groups[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// A group stays busy for a moment after its last process.
func removeCgroup(path string) error {
	var err error
	for range 100 {
		if err = os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

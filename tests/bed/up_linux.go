package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The parameters of the processes inside, in the environment.
type spec struct {
	Number int
	// Its parts: root (Debian's packages), images, run.
	Dir string
	// State of this bed: Dir/run/Number, /run/bed inside.
	State string
	// Paths of the network namespaces as the rest of the machine sees them.
	Namespaces map[string]string
	Cgroup     string
	// Whether the output is for people.
	Text bool
}

const specVariable = "DEVCLUSTER_BED"

var self = must(os.Executable())

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// A cluster of one node. It prints one line of JSON when it is ready, reads commands from stdin, and ends at the end of stdin
// or on a signal. Everything inside is in a PID namespace, so it ends with that namespace's init, and init with this process.
func up(args []string) error {
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	dir := flags.String("dir", "", "the directory that scripts/get-bed printed")
	text := flags.Bool("text", false, "print text for people in place of JSON")
	_ = flags.Parse(args)
	root, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	state, lock, err := claimState(root)
	if err != nil {
		return err
	}
	watcher, err := startWatcher(state, lock)
	if err != nil {
		return err
	}
	failure := run(&spec{Number: state.number, Dir: root, State: state.path, Cgroup: state.cgroup, Text: *text})
	if err := watcher.end(); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	return failure
}

func run(spec *spec) error {
	spec.Namespaces = map[string]string{}
	files := []*os.File{}
	for _, name := range []string{"switch", "laptop", "cloud", "ssh"} {
		file, err := newNetworkNamespace()
		if err != nil {
			return fmt.Errorf("a network namespace: %w", err)
		}
		files = append(files, file)
		spec.Namespaces[name] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())
	}
	if err := writeEntrances(spec); err != nil {
		return err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	inside := exec.Command(self, "init")
	inside.Env = append(os.Environ(), specVariable+"="+string(text))
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.ExtraFiles = files
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		// Only this process handles the interrupt of a terminal.
		Setsid: true,
	}
	commands, err := inside.StdinPipe()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := startIn(files[cloudSpace-firstNamespace], inside); err != nil {
		return err
	}
	if err := noteInit(spec.State, inside.Process.Pid); err != nil {
		_ = inside.Process.Kill()
	}
	ended := make(chan struct{})
	go func() {
		<-signals
		commands.Close()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = inside.Process.Kill()
		}
	}()
	go func() {
		_, _ = io.Copy(commands, os.Stdin)
		select {
		case signals <- syscall.SIGTERM:
		default:
		}
	}()
	err = inside.Wait()
	close(ended)
	return err
}

// A script for each host that runs a command there, with kubectl and the admin's kubeconfig.
func writeEntrances(spec *spec) error {
	bin := filepath.Join(spec.State, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	scripts := map[string]string{filepath.Join(bin, "kubectl"): fmt.Sprintf("exec %q kubectl \"$@\"\n", self)}
	for _, host := range hosts {
		scripts[spec.entrance(host.name)] = fmt.Sprintf("export KUBECONFIG=%q PATH=%q:$PATH\n"+
			"[ $# -gt 0 ] || set -- \"${SHELL:-sh}\"\nexec nsenter --net=%s \"$@\"\n",
			filepath.Join(spec.State, "kubeconfig"), bin, spec.Namespaces[host.name])
	}
	for path, script := range scripts {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (s *spec) entrance(host string) string { return filepath.Join(s.State, host) }

// Starts a process in that network namespace, on this thread, which its parent-death signal follows.
func startIn(space *os.File, command *exec.Cmd) error {
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ours.Close()
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	return unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET)
}

// The first process of the PID namespace: it reaps orphans, and ends with the node.
func initProcess([]string) error {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := firstNamespace; fd < firstNamespace+4; fd++ {
		files = append(files, os.NewFile(uintptr(fd), ""))
	}
	child, err := os.StartProcess(self, []string{self, "node"}, &os.ProcAttr{Files: files, Env: os.Environ()})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if pid == child.Pid && (status.Exited() || status.Signaled()) {
			if status.Signaled() {
				return fmt.Errorf("the node was ended by %s", status.Signal())
			}
			os.Exit(status.ExitStatus())
		}
	}
}

func readSpec() (*spec, error) {
	var given spec
	err := json.Unmarshal([]byte(os.Getenv(specVariable)), &given)
	os.Unsetenv(specVariable)
	return &given, err
}

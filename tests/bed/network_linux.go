package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Network namespaces arrive as open files, in this order, after stdin, stdout and stderr.
const firstNamespace = 3

const (
	switchSpace = firstNamespace + iota
	laptopSpace
	cloudSpace
	sshSpace
)

// The hosts on the switch, in the order of their addresses.
var hosts = []struct {
	name  string
	space int
}{{"laptop", laptopSpace}, {"cloud", cloudSpace}, {"ssh", sshSpace}}

// Addresses of one bed, and the names that its configuration files use.
type addresses struct {
	Laptop, Node, SSH string
	Pods, Services    string
	// The first address of Services: the API's.
	API        string
	PauseImage string
	Cgroup     string
	number     int
}

func addressesOf(spec *spec) addresses {
	n := spec.Number
	return addresses{
		Laptop: fmt.Sprintf("10.77.%d.1", n), Node: fmt.Sprintf("10.77.%d.2", n), SSH: fmt.Sprintf("10.77.%d.3", n),
		Pods: fmt.Sprintf("10.244.%d.0/24", n), Services: fmt.Sprintf("10.%d.0.0/16", 96+n), API: fmt.Sprintf("10.%d.0.1", 96+n),
		PauseImage: "bed.invalid/pause:1", Cgroup: spec.Cgroup, number: n,
	}
}

// Addresses for load balancers.
func (a addresses) balancer(n int) string { return fmt.Sprintf("10.77.%d.%d", a.number, 100+n) }

const balancers = 100

// The namespace lives as long as the file is open or a process is in it.
func newNetworkNamespace() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		// The thread ends with the goroutine, since it stays locked.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{nil, err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		made <- result{file, err}
	}()
	got := <-made
	return got.file, got.err
}

// Runs a function on a thread in that network namespace, which the processes started there inherit.
func inNetwork(space int, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(space, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

func runIn(space int, stdin string, name string, args ...string) error {
	return inNetwork(space, func() error {
		command := exec.Command(name, args...)
		command.Stdin = strings.NewReader(stdin)
		said, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
		}
		return nil
	})
}

func ip(space int, lines ...string) error {
	return runIn(space, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// A switch with a cable to each host.
func layCables(at addresses) error {
	lines := []string{"link add br0 type bridge", "link set br0 up"}
	for _, host := range hosts {
		lines = append(lines,
			fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", host.name, os.Getpid(), host.space),
			fmt.Sprintf("link set %s master br0 up", host.name))
	}
	if err := ip(switchSpace, lines...); err != nil {
		return err
	}
	for i, address := range []string{at.Laptop, at.Node, at.SSH} {
		lines := []string{"link set lo up", "link set eth0 up", "addr add " + address + "/24 dev eth0"}
		if hosts[i].name != "ssh" {
			// There is no internet, but stock devcluster needs a default route.
			lines = append(lines, "route add default via "+at.SSH)
		}
		if err := ip(hosts[i].space, lines...); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{"ip_forward": "1", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0"} {
		if err := inNetwork(cloudSpace, func() error { return os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0) }); err != nil {
			return err
		}
	}
	return nil
}

// Pulls a host's cable or plugs it in.
func setCable(name, to string) error {
	for _, host := range hosts {
		if host.name == name {
			return ip(switchSpace, "link set "+name+" "+to)
		}
	}
	return fmt.Errorf("there is no host %q", name)
}

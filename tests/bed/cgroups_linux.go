package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A group of this name in every hierarchy of cgroup v1, below which kubelet makes those of the pods.
func makeCgroups(name string) error {
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/tasks")
	if err != nil {
		return err
	}
	for _, tasks := range hierarchies {
		root := filepath.Dir(tasks)
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
		for _, setting := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(root, setting))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(root, name, setting), value, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// Ends every process that is in a container of a pod or holds one.
func killContainers(cgroup string) {
	groups, _ := filepath.Glob("/sys/fs/cgroup/pids/" + cgroup)
	for _, group := range groups {
		_ = filepath.Walk(group, func(path string, _ os.FileInfo, err error) error {
			if err == nil && filepath.Base(path) == "cgroup.procs" {
				killListed(path)
			}
			return nil
		})
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range commands {
		name, _ := os.ReadFile(path)
		if strings.HasPrefix(string(name), "containerd-shim") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func killListed(path string) {
	text, _ := os.ReadFile(path)
	for _, line := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The directory of this bed, inside.
const inside = "/run/bed"

func at(parts ...string) string { return filepath.Join(append([]string{inside}, parts...)...) }

// Settings that kubelet would change for the whole machine appear as set.
var machineSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// Arranges the machine's directories as a node's, in a separate mount namespace.
func mountAll(spec *spec) error {
	// The bed's directories have their real paths until /run is mounted.
	state, images := spec.State, filepath.Join(spec.Dir, "images")
	debian := filepath.Join(spec.Dir, "root")
	for _, dir := range []string{images, filepath.Join(state, "kubelet"), filepath.Join(state, "sshd"), filepath.Join(state, "cni")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := linkStore(filepath.Join(spec.Dir, "store"), filepath.Join(state, "containerd")); err != nil {
		return err
	}
	mounts := []mount{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"none", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
		{"proc", "/proc", "proc", 0, ""},
	}
	for _, m := range mounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/usr", "/etc", "/var/lib", "/var/log"} {
		lower := dir
		if dir == "/usr" {
			lower = filepath.Join(debian, dir) + ":" + dir
		}
		if err := overlay(state, dir, lower); err != nil {
			return err
		}
	}
	if strings.HasPrefix(state, "/run/") {
		return fmt.Errorf("%s: a bed cannot be below /run", state)
	}
	if err := (mount{"tmpfs", "/run", "tmpfs", 0, "mode=755"}).do(); err != nil {
		return err
	}
	for source, target := range map[string]string{
		state: inside, images: "/run/images", filepath.Join(state, "kubelet"): "/var/lib/kubelet",
	} {
		if err := bind(source, target); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/containerd", "/run/netns", "/run/sshd"} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return pretendSettings()
}

// A copy of containerd's image store: links to the files, which are never written to, and copies of its databases.
func linkStore(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case entry.IsDir():
			info, err := entry.Info()
			if err != nil {
				return err
			}
			if err := os.Mkdir(target, 0o755); err != nil {
				return err
			}
			return os.Chmod(target, info.Mode())
		case filepath.Ext(path) == ".db":
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, content, 0o600)
		}
		return os.Link(path, target)
	})
}

func bind(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return mount{source, target, "", unix.MS_BIND | unix.MS_REC, ""}.do()
}

func overlay(state, dir, lower string) error {
	name := strings.ReplaceAll(dir[1:], "/", "-")
	upper, work := filepath.Join(state, "upper", name), filepath.Join(state, "work", name)
	for _, made := range []string{upper, work} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			return err
		}
	}
	return mount{"overlay", dir, "overlay", 0, "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work}.do()
}

func pretendSettings() error {
	if err := os.Mkdir("/run/settings", 0o755); err != nil {
		return err
	}
	for name, value := range machineSettings {
		real := "/proc/sys/" + name
		if _, err := os.Stat(real); err != nil {
			continue
		}
		file := "/run/settings/" + strings.ReplaceAll(name, "/", "-")
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := (mount{file, real, "", unix.MS_BIND, ""}).do(); err != nil {
			return err
		}
	}
	return nil
}

// The mounts of containers and volumes, last first.
func unmountPods() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(table), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 2 {
			continue
		}
		for _, below := range []string{"/run/containerd/", "/run/netns/", "/var/lib/kubelet/"} {
			if strings.HasPrefix(fields[1], below) {
				_ = unix.Unmount(fields[1], unix.MNT_DETACH)
			}
		}
	}
	return os.RemoveAll("/run/containerd/io.containerd.runtime.v2.task")
}

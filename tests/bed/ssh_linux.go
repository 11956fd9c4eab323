package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
)

// The public ssh server, and the login of the laptop.
func (c *cluster) startSSH() error {
	for _, key := range []string{"host_key", "id"} {
		if said, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at("sshd", key)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, said)
		}
	}
	host, err := os.ReadFile(at("sshd", "host_key.pub"))
	if err != nil {
		return err
	}
	outside := func(name string) string { return filepath.Join(c.spec.State, "sshd", name) }
	config := fmt.Sprintf("Host %s\n  User root\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n", c.at.SSH, outside("id"), outside("known_hosts"))
	if err := os.WriteFile(at("sshd", "config"), []byte(config), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(at("sshd", "known_hosts"), []byte(c.at.SSH+" "+string(host)), 0o600); err != nil {
		return err
	}
	if err := os.Link(at("sshd", "id.pub"), at("sshd", "authorized_keys")); err != nil {
		return err
	}
	// The install script of the package would create it.
	if _, err := user.Lookup("sshd"); err != nil {
		passwd, err := os.OpenFile("/etc/passwd", os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer passwd.Close()
		if _, err := passwd.WriteString("sshd:x:64022:65534::/run/sshd:/usr/sbin/nologin\n"); err != nil {
			return err
		}
	}
	return c.processes.start(program{"sshd", sshSpace, []string{"-D", "-e", "-f", at("sshd", "sshd_config")}})
}

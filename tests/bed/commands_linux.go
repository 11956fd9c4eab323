package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

type commands struct {
	lines chan string
	ended chan struct{}
}

func readCommands() commands {
	read := commands{make(chan string, 16), make(chan struct{})}
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			read.lines <- lines.Text()
		}
		close(read.ended)
	}()
	return read
}

// Runs commands until the input ends; answers each with one line.
func (c *cluster) obey(commands commands) error {
	for {
		select {
		case line := <-commands.lines:
			answer := map[string]string{"done": line}
			if err := c.do(strings.Fields(line)); err != nil {
				answer = map[string]string{"failed": line, "error": err.Error()}
			}
			if err := c.say(answer); err != nil {
				return err
			}
		case err := <-c.processes.failed:
			return err
		case <-commands.ended:
			return nil
		}
	}
}

const commandNames = "pull|plug laptop|cloud|ssh, balancer on|off, kill|start|restart PROCESS, reboot"

func (c *cluster) do(words []string) error {
	switch strings.Join(words, " ") {
	case "balancer on":
		return c.balancer.set(true)
	case "balancer off":
		return c.balancer.set(false)
	case "reboot":
		return c.reboot()
	}
	if len(words) == 2 {
		switch words[0] {
		case "pull":
			return setCable(words[1], "down")
		case "plug":
			return setCable(words[1], "up")
		case "kill":
			return c.processes.stop(words[1], syscall.SIGKILL)
		case "start":
			return c.processes.resume(words[1])
		case "restart":
			if err := c.processes.stop(words[1], syscall.SIGTERM); err != nil {
				return err
			}
			return c.processes.resume(words[1])
		}
	}
	return fmt.Errorf("commands are: %s", commandNames)
}

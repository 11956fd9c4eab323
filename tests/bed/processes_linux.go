package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// How a process of the node is started, also repeatedly.
type program struct {
	name  string
	space int
	args  []string
}

// The node's processes. When one ends unexpectedly, the bed has failed.
type processes struct {
	failed chan error

	mutex   sync.Mutex
	running map[string]*running
}

type running struct {
	program program
	process *os.Process
	ended   chan struct{}
	stopped bool
}

func newProcesses() *processes {
	return &processes{failed: make(chan error, 16), running: map[string]*running{}}
}

// Starts this program under that name, or the system's program if this one does not contain it.
func (p *processes) start(program program) error {
	log, err := os.OpenFile(at("logs", program.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(program.name, program.args...)
	if _, ours := programs[program.name]; ours {
		command = exec.Command(self, append([]string{program.name}, program.args...)...)
	}
	// sshd execs itself by this name.
	command.Args[0] = command.Path
	command.Stdout, command.Stderr = log, log
	command.Dir = inside
	if err := inNetwork(program.space, command.Start); err != nil {
		return fmt.Errorf("%s: %w", program.name, err)
	}
	started := &running{program: program, process: command.Process, ended: make(chan struct{})}
	p.mutex.Lock()
	p.running[program.name] = started
	p.mutex.Unlock()
	go func() {
		err := command.Wait()
		close(started.ended)
		p.mutex.Lock()
		defer p.mutex.Unlock()
		if !started.stopped {
			p.failed <- fmt.Errorf("%s ended: %w", program.name, errors.Join(err, errors.New("see its log")))
		}
	}()
	return nil
}

// How long a process may take to end: kube-apiserver waits a minute for watches.
const patience = 2 * time.Second

// Ends a process, by force if it takes long, and waits until it has ended.
func (p *processes) stop(name string, with syscall.Signal) error {
	p.mutex.Lock()
	found, ok := p.running[name]
	if ok {
		found.stopped = true
	}
	p.mutex.Unlock()
	if !ok {
		return fmt.Errorf("there is no process %q", name)
	}
	_ = found.process.Signal(with)
	select {
	case <-found.ended:
	case <-time.After(patience):
		_ = found.process.Kill()
		<-found.ended
	}
	return nil
}

// Starts a stopped process.
func (p *processes) resume(name string) error {
	p.mutex.Lock()
	found, ok := p.running[name]
	p.mutex.Unlock()
	if !ok {
		return fmt.Errorf("there is no process %q", name)
	}
	return p.start(found.program)
}

package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// The state that the master keeps over a restart: a file in place of PostgreSQL.
type database struct {
	path  string
	mutex sync.Mutex

	Cluster string
	// By user; a blank password stays blank, also when the configuration sets one later.
	Passwords map[string]string
	Tasks     map[string]*task
	// Namespaces of workspaces, by manager and workspace.
	Bindings map[string]map[string]string
}

// A task. State is QUEUED, RUNNING, COMPLETED or ERROR.
type task struct {
	ID        string   `json:"id"`
	Kind      string   `json:"kind"`
	Command   string   `json:"command"`
	Image     string   `json:"image"`
	Ports     []int32  `json:"ports"`
	Workspace string   `json:"workspace"`
	Pool      string   `json:"pool"`
	State     string   `json:"state"`
	Logs      []string `json:"logs"`
	// Set once it is in the cluster: the namespace, the job, and the Gateway's port of each proxied port.
	Manager   string `json:"manager"`
	Namespace string `json:"namespace"`
	Job       string `json:"job"`
	Gateway   []int  `json:"gateway"`
}

func (t *task) allocation() string { return t.ID + ".1" }

func (t *task) ended() bool { return t.State == "COMPLETED" || t.State == "ERROR" }

func openDatabase(path, initialPassword string) (*database, error) {
	made := &database{path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		made.Cluster = newUUID()
		made.Passwords = map[string]string{"admin": initialPassword, "determined": initialPassword}
		made.Tasks = map[string]*task{}
		made.Bindings = map[string]map[string]string{}
		return made, made.change(func() {})
	}
	if err != nil {
		return nil, err
	}
	return made, json.Unmarshal(text, made)
}

// Changes it and saves it before the change has an effect.
func (d *database) change(how func()) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	how()
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(d.path+".new", d.path)
}

func (d *database) read(how func()) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	how()
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// A Kubernetes for the tests, with its real programs.
//
// It is one program with the mains of etcd and of every Kubernetes component, chosen by the first argument as busybox
// does, because they share most of their code. README.md says what the bed is and how it is used.
package main

import (
	"fmt"
	"os"
	"runtime"
)

// Commands that are not components of Kubernetes. Linux has more of both.
var (
	verbs    = map[string]func(args []string) error{"api": api, "image": image}
	programs = map[string]func() int{}
)

// Namespaces and parent-death signals belong to threads: main's thread lives until the end.
func init() { runtime.LockOSThread() }

func main() {
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if program, ok := programs[name]; ok {
		os.Args = os.Args[1:]
		os.Exit(program())
	}
	verb, ok := verbs[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: bed up|api|image|<component of Kubernetes> ...")
		os.Exit(2)
	}
	if err := verb(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bed "+name+":", err)
		os.Exit(1)
	}
}

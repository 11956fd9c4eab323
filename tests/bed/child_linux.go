package main

import (
	"runtime"
	"syscall"
)

func diesWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func lockThread() { runtime.LockOSThread() }

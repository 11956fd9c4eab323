//go:build !linux

package main

import "syscall"

// Only Linux has a signal for this; elsewhere a killed parent leaves its etcd and kube-apiserver to the user.
func diesWithUs() *syscall.SysProcAttr { return nil }

func lockThread() {}

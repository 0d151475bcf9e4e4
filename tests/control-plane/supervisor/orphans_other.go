//go:build !linux

package main

import "syscall"

// attributes keep a terminal's Ctrl-C away from a component. Only Linux can tie its life to the
// supervisor's: elsewhere a supervisor that was killed leaves its components behind.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

package main

import "syscall"

// attributes keep a terminal's Ctrl-C away from a component, and let the kernel end it when the
// supervisor dies without a chance to do so itself.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

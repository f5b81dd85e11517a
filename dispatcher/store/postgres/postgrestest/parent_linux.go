package postgrestest

import "syscall"

// endWithParent lets a server not outlive the tests, however these end.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGQUIT }

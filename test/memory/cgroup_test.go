package memory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// cgroup is a memory limit for a process.
type cgroup struct{ procs string }

// newCgroup makes one, of version 2 or 1. It skips the test where that is not allowed: without a limit a dispatcher
// follows none.
func newCgroup(t *testing.T, limit int64) cgroup {
	t.Helper()
	var errs []error
	for _, version := range []struct{ root, file string }{
		{"/sys/fs/cgroup", "memory.max"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		dir := filepath.Join(version.root, fmt.Sprintf("eventflow-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o750); err != nil {
			errs = append(errs, err)
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // the process has ended; if not, it stays
		file, err := os.OpenFile(filepath.Join(dir, version.file), os.O_WRONLY, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, err = file.WriteString(strconv.FormatInt(limit, 10))
		if err = errors.Join(err, file.Close()); err == nil {
			return cgroup{filepath.Join(dir, "cgroup.procs")}
		}
		errs = append(errs, err)
	}
	t.Skipf("no cgroup can be made: %v", errors.Join(errs...))
	return cgroup{}
}

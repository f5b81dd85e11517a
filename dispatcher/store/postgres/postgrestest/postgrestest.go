// Package postgrestest runs real PostgreSQL servers for tests: each with a data folder of its own in a temporary
// directory, on a random port of the loopback interface, as a user that is not root. They can be killed, stopped,
// followed by a standby, and started again.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotInstalled means that there are no binaries of PostgreSQL.
var ErrNotInstalled = errors.New("no PostgreSQL server is installed: apt-get install postgresql")

// Options of a server.
type Options struct {
	// Durable keeps fsync on, as servers have it by default. Without, a test is faster, and what survives a kill of
	// all processes does so all the same; only a power failure would tell the difference.
	Durable bool
	// Settings are written to postgresql.conf.
	Settings map[string]string
	// Certificate is what the server offers TLS with; without one it offers none. It demands none in either case.
	Certificate *Certificate
}

// Server is a running server.
type Server struct {
	options Options
	bin     string
	folder  string
	port    int
	account *syscall.Credential

	running chan struct{} // closed once the process ended
	process *os.Process
}

const startTimeout = 60 * time.Second

// Start makes a data folder and starts a server on it.
func Start(options Options) (*Server, error) {
	s, err := newServer(options)
	if err != nil {
		return nil, err
	}
	initdb := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(s.folder))
	}
	if err := s.configure(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.folder))
	}
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func newServer(options Options) (*Server, error) {
	bin, err := findBinaries()
	if err != nil {
		return nil, err
	}
	s := &Server{options: options, bin: bin}
	if s.folder, err = os.MkdirTemp("", "postgrestest-"); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		if s.account, err = otherAccount(); err != nil {
			return nil, err
		}
		if err := os.Chown(s.folder, int(s.account.Uid), int(s.account.Gid)); err != nil {
			return nil, err
		}
	}
	s.port, err = freePort()
	return s, err
}

// findBinaries returns the folder with the server's binaries, the newest version's.
func findBinaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		slices.SortFunc(found, func(a, b string) int { return versionOf(a) - versionOf(b) })
		return filepath.Dir(found[len(found)-1]), nil
	}
	if out, err := exec.CommandContext(context.Background(), "pg_config", "--bindir").Output(); err == nil {
		bin := strings.TrimSpace(string(out))
		if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
			return bin, nil
		}
	}
	return "", ErrNotInstalled
}

// versionOf is the major version in a path /usr/lib/postgresql/VERSION/bin/postgres.
func versionOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// otherAccount is one that is not root's, which the server refuses.
func otherAccount() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("run a PostgreSQL server as root: there is neither a user postgres nor nobody")
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Data is the folder of the database's files.
func (s *Server) Data() string { return s.data() }

func (s *Server) data() string { return filepath.Join(s.folder, "data") }

func (s *Server) command(name string, arguments ...string) *exec.Cmd {
	c := exec.CommandContext(context.Background(), filepath.Join(s.bin, name), arguments...)
	c.Dir = s.folder
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.account, Setpgid: true}
	endWithParent(c.SysProcAttr)
	return c
}

// configure writes the settings behind those that initdb wrote.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses": "'127.0.0.1'", "port": strconv.Itoa(s.port), "unix_socket_directories": "''",
		"max_connections": "300", "log_min_messages": "warning", "shared_buffers": "'256MB'",
		"fsync": onOff(s.options.Durable), "full_page_writes": onOff(s.options.Durable),
		"max_wal_senders": "5", "wal_level": "replica", "hot_standby": "on",
	}
	if err := s.writeCertificate(settings); err != nil {
		return err
	}
	maps.Copy(settings, s.options.Settings)
	var text bytes.Buffer
	for name, value := range settings {
		fmt.Fprintf(&text, "%s = %s\n", name, value)
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text.Bytes())
	return errors.Join(err, f.Close())
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// Start starts the server again, and waits until it answers.
func (s *Server) Start() error {
	for deadline := time.Now().Add(startTimeout); ; {
		err := s.start()
		if err == nil || !strings.Contains(s.tail(), "pre-existing shared memory block") || time.Now().After(deadline) {
			return err
		}
		<-time.After(50 * time.Millisecond) // a process of its predecessor has not found out yet that it was killed
	}
}

func (s *Server) start() error {
	started, ended := make(chan error, 1), make(chan struct{})
	log, err := os.OpenFile(filepath.Join(s.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	go func() {
		// The signal at this process's death comes when the thread ends that started the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		defer func() { _ = log.Close() }()
		c := s.command("postgres", "-D", s.data())
		c.Stdout, c.Stderr = log, log
		err := c.Start()
		s.process = c.Process
		started <- err
		if err == nil {
			_ = c.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.running = ended
	return s.await(ended)
}

// await waits until the server answers.
func (s *Server) await(ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := pgx.Connect(ctx, s.URL("postgres")); err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ended:
			s.running = nil
			return fmt.Errorf("postgres ended: %s", s.tail())
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %s", s.tail())
		case <-tick.C:
		}
	}
}

// tail is the end of the server's log.
func (s *Server) tail() string {
	log, _ := os.ReadFile(filepath.Join(s.folder, "log"))
	return string(log[max(0, len(log)-500):])
}

// URL is the connection string of a database.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", s.Address(), database)
}

// Address is the host and port that the server listens on.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// signal sends a signal to the server, and waits until it ended.
func (s *Server) signal(signal syscall.Signal) error {
	if s.running == nil {
		return nil
	}
	if err := s.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.running
	s.running = nil
	return nil
}

// Shutdown ends the server: what is connected is cut, and everything is written.
func (s *Server) Shutdown() error { return s.signal(syscall.SIGINT) }

// Kill kills all of the server's processes at once.
func (s *Server) Kill() error {
	if s.running == nil {
		return nil
	}
	children := childrenOf(s.process.Pid)
	if err := s.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL) // those that are left end when they find out
	}
	<-s.running
	s.running = nil
	return nil
}

// childrenOf are the processes that a server started, where the system tells.
func childrenOf(pid int) (children []int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// Stop ends the server and removes its folder.
func (s *Server) Stop() error {
	err := s.signal(syscall.SIGQUIT)
	return errors.Join(err, os.RemoveAll(s.folder))
}

// Exec runs a statement in a database.
func (s *Server) Exec(ctx context.Context, database, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
	return errors.Join(err, conn.Close(ctx))
}

// Standby starts a server that follows this one under the given name, streaming.
func (s *Server) Standby(name string) (*Server, error) {
	standby, err := newServer(s.options)
	if err != nil {
		return nil, err
	}
	backup := standby.command("pg_basebackup", "-D", standby.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-d", s.URL("postgres")+"&application_name="+name)
	if out, err := backup.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("pg_basebackup: %w: %s", err, out), os.RemoveAll(standby.folder))
	}
	if err := standby.configure(); err != nil {
		return nil, err
	}
	if err := standby.Start(); err != nil {
		return nil, errors.Join(err, standby.Stop())
	}
	return standby, nil
}

// Promote makes a standby a server of its own.
func (s *Server) Promote(ctx context.Context) error {
	return s.Exec(ctx, "postgres", "SELECT pg_promote(true, 60)")
}

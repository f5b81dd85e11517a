package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoPooler means that PgBouncer is not installed.
var ErrNoPooler = errors.New("PgBouncer is not installed")

// Pooler starts a PgBouncer in transaction mode before the server. It returns the connection string of a database
// through it, and what stops it.
func (s *Server) Pooler(database string) (url string, stop func(), err error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		return "", nil, ErrNoPooler
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	config := filepath.Join(s.folder, fmt.Sprintf("pgbouncer-%d.ini", port))
	users := filepath.Join(s.folder, "users")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 8
`, s.port, port, users)
	if err := errors.Join(os.WriteFile(users, []byte(`"postgres" ""`), 0o644), os.WriteFile(config, []byte(text), 0o644)); err != nil { //nolint:gosec // another account reads them
		return "", nil, err
	}
	c := s.command("pgbouncer", config)
	c.Path = program
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	stop = func() {
		_ = c.Process.Kill()
		<-ended
	}
	url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", port, database)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return url, stop, conn.Close(ctx)
		}
		select {
		case <-ended:
			return "", nil, errors.New("pgbouncer ended")
		case <-ctx.Done():
			stop()
			return "", nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

func open(ctx context.Context, options postgres.Options) error {
	s, err := postgres.Open(ctx, options)
	if err != nil {
		return err
	}
	return s.Close()
}

func TestOpenTogether(t *testing.T) {
	t.Parallel()
	for range 20 { // the moments in which one is in another's way are short
		schema := newSchema()
		var opening sync.WaitGroup
		for range 8 {
			opening.Go(func() {
				if err := open(t.Context(), postgres.Options{URL: server.URL("postgres") + "&pool_max_conns=2", Schema: schema}); err != nil {
					t.Error(err)
				}
			})
		}
		opening.Wait()
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	newer, compatible := newSchema(), newSchema()
	for schema, oldest := range map[string]string{newer: "999", compatible: "1"} {
		if err := open(t.Context(), postgres.Options{URL: server.URL("postgres"), Schema: schema}); err != nil {
			t.Fatal(err)
		}
		if err := server.Exec(t.Context(), "postgres", "UPDATE "+schema+".meta SET version = 999, oldest_compatible = "+oldest); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range []string{"CREATE ROLE stranger LOGIN PASSWORD 'hunter2'", "REVOKE CREATE ON DATABASE postgres FROM PUBLIC"} {
		if err := server.Exec(t.Context(), "postgres", statement); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		url, schema string
		want        error
		text        string
	}{
		"a newer schema":               {schema: newer, want: postgres.ErrNewerSchema, text: "version 999"},
		"a newer schema that it knows": {schema: compatible},
		"no server":                    {url: "postgres://me:hunter2@127.0.0.1:1/secret", want: postgres.ErrUnreachable, text: "refuses connections"},
		"no such host":                 {url: "postgres://me:hunter2@nowhere.invalid/secret", want: postgres.ErrUnreachable},
		"no such database":             {url: server.URL("secret"), want: postgres.ErrUnreachable, text: "3D000"},
		"no rights":                    {url: strings.Replace(server.URL("postgres"), "postgres@", "stranger:hunter2@", 1), want: postgres.ErrNotMigrated, text: "permission denied"},
		"no URL":                       {url: "postgres://me:hunter2@secret:port/%zz", text: "not a PostgreSQL connection string"},
		"a schema's name":              {schema: "x; DROP TABLE y", text: "lower-case"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := postgres.Options{URL: test.url, Schema: test.schema}
			if options.URL == "" {
				options.URL = server.URL("postgres")
			}
			err := open(t.Context(), options)
			if test.want == nil && test.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Fatalf("got %v, want %v with %q", err, test.want, test.text)
			}
			for _, secret := range []string{"hunter2", "127.0.0.1", "nowhere.invalid"} {
				if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is %q", err)
				}
			}
		})
	}
}

func TestOpenWaits(t *testing.T) {
	t.Parallel()
	own := ownServer(t, nil)
	if err := own.Shutdown(); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		opened <- open(t.Context(), postgres.Options{URL: own.URL("postgres"), ConnectWait: time.Minute})
	}()
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

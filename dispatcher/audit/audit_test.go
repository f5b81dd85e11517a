package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var get = Record{Action: "get", User: "nurse", Source: "192.0.2.1", Namespace: "clinic-a", Delivery: "dlv_1", Status: 200}

// trail writes records to a file, and returns what is in it.
func trail(t *testing.T, name string, records int) []byte {
	t.Helper()
	l, err := Open(Options{Level: Reads, File: name})
	if err != nil {
		t.Fatal(err)
	}
	for range records {
		l.Add(Reads, get)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTampering: whatever is done to a line shows.
func TestTampering(t *testing.T) {
	t.Parallel()
	whole := trail(t, filepath.Join(t.TempDir(), "audit"), 5)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1] // start, 5 records, stop
	join := func(all ...[]byte) []byte { return bytes.Join(all, nil) }
	for name, test := range map[string]struct {
		text []byte
		want string // of the error; "" for none
	}{
		"as it is":          {whole, ""},
		"among other lines": {join(lines[0], []byte("{\"level\":\"info\"}\n\npanic\n"), join(lines[1:]...)), ""},
		"older put aside":   {join(lines[2:]...), ""},
		"two trails":        {join(whole, trail(t, filepath.Join(t.TempDir(), "audit"), 2)), ""},
		"changed":           {bytes.Replace(whole, []byte("nurse"), []byte("other"), 1), "line 2: record 2 has not the hash"},
		"changed status":    {bytes.Replace(whole, []byte(`"status":200`), []byte(`"status":403`), 1), "line 2"},
		"added member":      {bytes.Replace(whole, []byte(`,"status":200`), []byte(`,"status":200,"x":1`), 1), "line 2"},
		"taken out":         {join(lines[0], lines[1], join(lines[3:]...)), "record 4 follows record 2"},
		"moved":             {join(lines[0], lines[2], lines[1], join(lines[3:]...)), "record 3 follows record 1"},
		"twice":             {join(lines[0], lines[1], lines[1], join(lines[2:]...)), "record 2 follows record 2"},
		"its begin":         {join(whole, join(lines[2:]...)), "record 3 follows record 7"},
		"cut off":           {whole[:len(whole)-10], "cut off"},
		"another's middle":  {join(whole, bytes.SplitAfter(trail(t, filepath.Join(t.TempDir(), "audit"), 2), []byte("\n"))[1]), "which has no begin"},
		"of tomorrow":       {bytes.Replace(whole, []byte(`{"audit":1`), []byte(`{"audit":2`), 1), "format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Verify(bytes.NewReader(test.text))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("it says %v, want %q", err, test.want)
			}
		})
	}
}

// TestRenumbered: who renumbers the lines behind a gap has not the hashes.
func TestRenumbered(t *testing.T) {
	t.Parallel()
	lines := bytes.SplitAfter(trail(t, filepath.Join(t.TempDir(), "audit"), 3), []byte("\n"))
	for i, text := range lines[3:5] {
		lines[3+i] = bytes.Replace(text, fmt.Appendf(nil, `"seq":%d,`, 4+i), fmt.Appendf(nil, `"seq":%d,`, 3+i), 1)
	}
	if _, err := Verify(bytes.NewReader(bytes.Join(append(lines[:2:2], lines[3:]...), nil))); err == nil || !strings.Contains(err.Error(), "hash") {
		t.Errorf("a record that was taken out does not show: %v", err)
	}
}

// TestTrailGoesOn: over restarts, and after a crash that cut a line off.
func TestTrailGoesOn(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "audit")
	first := trail(t, name, 2)
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is for others, too: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(name, append(first, `{"audit":1,"trail":"x","se`...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Verify(bytes.NewReader(trail(t, name, 3)))
	if err != nil || s.Records != 4+5 || s.First != 1 || s.Last != 9 || !s.Stopped || s.Lost != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for what, text := range map[string]string{"no trail": "something\n", "one long line": "x"} {
		other := filepath.Join(t.TempDir(), "audit")
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Level: All, File: other}); err == nil {
			t.Errorf("%s is appended to", what)
		}
	}
}

// TestLevels: each has what those below it have, and a Log that is nil has nothing.
func TestLevels(t *testing.T) {
	t.Parallel()
	for i, name := range levels {
		level, err := ParseLevel(name)
		if err != nil || level != Level(i) {
			t.Fatalf("%s is %d, %v", name, level, err)
		}
		l, err := Open(Options{Level: level, File: filepath.Join(t.TempDir(), "audit")})
		if err != nil {
			t.Fatal(err)
		}
		for other := Writes; other <= All; other++ {
			if got := l.Records(other); got != (other <= level) {
				t.Errorf("%s records %s: %t", name, levels[other], got)
			}
		}
		l.Add(All, get)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := ParseLevel("Most"); err == nil {
		t.Error("there is a level Most")
	}
}

// disk is an output that can be full, or hang.
type disk struct {
	mu   sync.Mutex
	text bytes.Buffer
	full bool
	hang chan struct{} // nil unless writes hang until it is closed
}

func (d *disk) Write(text []byte) (int, error) {
	d.mu.Lock()
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		n := len(text) / 3
		d.text.Write(text[:n])
		return n, errors.New("no space left on device")
	}
	return d.text.Write(text)
}

func (d *disk) Restore(written int) (int, error) { return written, nil }
func (*disk) Sync() error                        { return nil }
func (*disk) Close() error                       { return nil }

func (d *disk) set(full bool, hang chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.hang = full, hang
}

func (d *disk) read() io.Reader {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.NewReader(bytes.Clone(d.text.Bytes()))
}

// TestFullDisk: nobody waits, what waits is bounded, and the trail says how many records were lost.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]bool{"full": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				to := &disk{}
				var failures atomic.Int32
				l, err := start(Options{Level: All, Failed: func(error) { failures.Add(1) }}, to, line{}, digest{})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				hang := make(chan struct{})
				if hangs {
					to.set(false, hang)
				} else {
					to.set(true, nil)
				}
				began := time.Now()
				const n = 3 * waiting
				l.Add(All, get)
				synctest.Wait() // it is being written
				for range n {
					l.Add(All, get)
				}
				if waited := time.Since(began); waited != 0 {
					t.Errorf("those who are recorded waited %v", waited)
				}
				lost := l.lost.Load()
				if lost != n-waiting {
					t.Errorf("%d records were lost, want %d: what waits is not bounded as it says", lost, n-waiting)
				}
				time.Sleep(3 * retryPause) //nolint:forbidigo // by the bubble's clock
				if n := failures.Load(); !hangs && n < 3 {
					t.Errorf("it was tried %d times", n)
				}
				to.set(false, nil)
				close(hang)
				time.Sleep(2 * retryPause) //nolint:forbidigo // as above
				l.Add(All, get)
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				s, err := Verify(to.read())
				if err != nil || s.Lost != lost || !s.Stopped || s.Records < waiting+3 {
					t.Errorf("%+v, %v", s, err)
				}
			})
		})
	}
}

// TestCloseIsBounded: neither a full disk nor one that hangs keeps a dispatcher from ending.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]bool{"full": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				to := &disk{}
				l, err := start(Options{Level: All}, to, line{}, digest{})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				hang := make(chan struct{})
				if hangs {
					to.set(false, hang)
				} else {
					to.set(true, nil)
				}
				l.Add(All, get)
				began := time.Now()
				if err := l.Close(); err == nil {
					t.Error("it says nothing of what is missing")
				}
				if took := time.Since(began); took > closeTimeout+retryPause {
					t.Errorf("it took %v", took)
				}
				close(hang)
			})
		})
	}
}

// TestTextsAreBounded: a name cannot make a line that Verify cannot read.
func TestTextsAreBounded(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "audit")
	l, err := Open(Options{Level: All, File: name})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Repeat("ä", 10000), strings.Repeat("\x00", 10000), "\n{\"audit\":1", `","hash":"`, "\xff\xfe"} {
		l.Add(All, Record{Action: text, User: text, Source: text, Namespace: text, Delivery: text})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Verify(bytes.NewReader(text)); err != nil || s.Records != 7 {
		t.Errorf("%+v, %v", s, err)
	}
}

// BenchmarkAdd is what a request pays.
func BenchmarkAdd(b *testing.B) {
	for _, level := range []Level{None, Reads, All} {
		b.Run(levels[level], func(b *testing.B) {
			l, err := Open(Options{Level: level, File: filepath.Join(b.TempDir(), "audit")})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Add(All, get)
			}
			b.StopTimer()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

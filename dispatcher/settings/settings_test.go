package settings

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// full has a value in every field.
func full() *Settings {
	return &Settings{
		Generation: 7, MaxEventBytes: 2048, OutageGrace: 90 * time.Second, Delivered: 36 * time.Hour, Failed: 90 * time.Minute,
		Quota: routing.Quota{EventsPerSecond: 1, EventsBurst: 2, PendingBytes: 3, PendingDeliveries: 4, ScheduledDeliveries: 6, AttemptsInFlight: 5},
		Egress: Egress{
			AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			DeniedCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}, AllowedPorts: []uint16{25},
		},
		EventResources: []string{"lab-order"},
	}
}

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	fields := reflect.ValueOf(*full())
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("%s is not tested", fields.Type().Field(i).Name)
		}
	}
	defaults := Defaults()
	for name, want := range map[string]*Settings{"full": full(), "defaults": &defaults} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if diff := cmp.Diff(want, got, samePrefix); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got):\n%s", name, err, diff)
		}
		if again, _ := got.Encode(); !bytes.Equal(b, again) {
			t.Errorf("%s: other bytes for the same settings", name)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text      string
		want      func(*Settings)
		wantError string // a part of it; "" for none
	}{
		"nothing said":         {`{"format":1}`, func(*Settings) {}, ""},
		"one field":            {`{"format":1,"generation":3,"retentionFailed":"2h"}`, func(s *Settings) { s.Generation, s.Failed = 3, 2*time.Hour }, ""},
		"no outage grace":      {`{"format":1,"outageGrace":"0s"}`, func(s *Settings) { s.OutageGrace = 0 }, ""},
		"of a newer manager":   {`{"format":1,"egress":{"allowHTTP":true,"later":[1]},"later":{"x":1}}`, func(s *Settings) { s.Egress.AllowHTTP = true }, ""},
		"a newer format":       {`{"format":2}`, nil, "format 2"},
		"no format":            {`{}`, nil, "format 0"},
		"empty":                {``, nil, "end of JSON"},
		"damaged":              {`{"format":1`, nil, "end of JSON"},
		"another type":         {`{"format":1,"maxEventBytes":"x"}`, nil, "maxEventBytes"},
		"too long":             {`{"format":1,"x":"` + strings.Repeat("x", maxBytes) + `"}`, nil, "more than"},
		"event too small":      {`{"format":1,"maxEventBytes":1023}`, nil, "bound of an event"},
		"event too large":      {`{"format":1,"maxEventBytes":8388609}`, nil, "bound of an event"},
		"grace too long":       {`{"format":1,"outageGrace":"5m1s"}`, nil, "outage grace"},
		"grace negative":       {`{"format":1,"outageGrace":"-1s"}`, nil, "outage grace"},
		"grace is no duration": {`{"format":1,"outageGrace":"soon"}`, nil, "duration"},
		"retention too short":  {`{"format":1,"retentionDelivered":"59m"}`, nil, "retention"},
		"quota negative":       {`{"format":1,"quota":{"pendingBytes":-1}}`, nil, "quota"},
		"no range":             {`{"format":1,"egress":{"deniedCIDRs":["10.0.0.0"]}}`, nil, "10.0.0.0"},
		"empty range":          {`{"format":1,"egress":{"allowedCIDRs":[""]}}`, nil, "address range"},
		"TLS 1.1":              {`{"format":1,"egress":{"minTLS":770}}`, nil, "version of TLS"},
		"TLS 1.3":              {`{"format":1,"egress":{"minTLS":772}}`, func(s *Settings) { s.Egress.MinTLS = tls.VersionTLS13 }, ""},
		"port 0":               {`{"format":1,"egress":{"allowedPorts":[0]}}`, nil, "port 0"},
		"port too large":       {`{"format":1,"egress":{"allowedPorts":[65536]}}`, nil, "65536"},
		"resource":             {`{"format":1,"eventResources":["Lab"]}`, nil, "event resources"},
		"generation":           {`{"format":1,"generation":-1}`, nil, "generation"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(tc.text))
			if tc.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantError) {
					t.Errorf("error %v, want one about %q", err, tc.wantError)
				}
				return
			}
			want := Defaults()
			tc.want(&want)
			if diff := cmp.Diff(&want, got, samePrefix); diff != "" || err != nil {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestEncodeRefusesWhatNobodyCanWorkBy(t *testing.T) {
	t.Parallel()
	s := full()
	s.Egress.DeniedCIDRs = []netip.Prefix{{}}
	if _, err := s.Encode(); err == nil {
		t.Error("no error")
	}
}

func FuzzDecode(f *testing.F) {
	seed, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"format":1,"egress":{"allowedCIDRs":["::ffff:10.0.0.0/104"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Decode(text)
		if err != nil {
			return
		}
		if _, err := s.Catalog(); err != nil {
			t.Error(err)
		}
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(b)
		if diff := cmp.Diff(s, again, samePrefix); diff != "" || err != nil {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	})
}

func TestLastGood(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "made", "later", Key)
	last := NewLastGood(path)
	if _, err := last.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first: %v", err)
	}
	defaults := Defaults()
	for _, want := range []*Settings{&defaults, full()} {
		if err := last.Save(want); err != nil {
			t.Fatal(err)
		}
		got, err := last.Load()
		if diff := cmp.Diff(want, got, samePrefix); diff != "" || err != nil {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte(`{"format":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Load(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("damaged: %v", err)
	}
}

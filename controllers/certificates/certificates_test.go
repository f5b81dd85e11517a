package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"
)

var (
	hosts = []string{"eventflow-deliveries-main.clinic-a.svc"}
	began = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

func renew(t *testing.T, s Set, now time.Time) (Set, time.Time) {
	t.Helper()
	renewed, again, err := Brief.Renew(s, hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	if !again.After(now) {
		t.Errorf("it asks again at %v, and it is %v", again, now)
	}
	return renewed, again
}

func authorities(bundle []byte) (n int) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		n++
	}
	return n
}

// verifies reports whether a client that trusts a bundle takes a certificate.
func verifies(t *testing.T, pair Pair, bundle []byte, now time.Time) bool {
	t.Helper()
	_, err := pair.valid(hosts, bundle, now)
	return err == nil
}

// TestRenew: what each state of a Set becomes.
func TestRenew(t *testing.T) {
	t.Parallel()
	first, _ := renew(t, Set{}, began)
	due := began.Add(Brief.Renewal)
	staged, _ := renew(t, first, due)
	for name, test := range map[string]struct {
		set             Set
		now             time.Time
		wantServing     *Pair // nil if a new one
		wantNext        bool
		wantAuthorities int
		wantAgain       time.Time
		wantSame        bool
	}{
		"nothing yet":                    {set: Set{}, now: began, wantAuthorities: 1, wantAgain: due},
		"fresh":                          {set: first, now: began.Add(time.Hour), wantServing: &first.Serving, wantAuthorities: 1, wantAgain: due, wantSame: true},
		"just before it is due":          {set: first, now: due.Add(-time.Second), wantServing: &first.Serving, wantAuthorities: 1, wantAgain: due, wantSame: true},
		"due":                            {set: first, now: due, wantServing: &first.Serving, wantNext: true, wantAuthorities: 2, wantAgain: due.Add(Brief.Overlap)},
		"staged, clients may not know":   {set: staged, now: due.Add(Brief.Overlap - time.Second), wantServing: &first.Serving, wantNext: true, wantAuthorities: 2, wantAgain: due.Add(Brief.Overlap), wantSame: true},
		"staged, clients know":           {set: staged, now: due.Add(Brief.Overlap), wantServing: &staged.Next, wantAuthorities: 2, wantAgain: due.Add(Brief.Renewal)},
		"staged, the old one expired":    {set: staged, now: began.Add(Brief.Life + time.Second), wantServing: &staged.Next, wantAuthorities: 1, wantAgain: due.Add(Brief.Renewal)},
		"all expired":                    {set: staged, now: due.Add(Brief.Life + time.Second), wantAuthorities: 1, wantAgain: due.Add(Brief.Life + time.Second).Add(Brief.Renewal)},
		"expired":                        {set: first, now: began.Add(Brief.Life + time.Second), wantAuthorities: 1, wantAgain: began.Add(Brief.Life + time.Second).Add(Brief.Renewal)},
		"no key":                         {set: Set{Serving: Pair{Certificate: first.Serving.Certificate}, Bundle: first.Bundle}, now: began, wantAuthorities: 2, wantAgain: due},
		"not PEM":                        {set: Set{Serving: Pair{Certificate: []byte("x"), Key: []byte("y")}, Bundle: []byte("z")}, now: began, wantAuthorities: 1, wantAgain: due},
		"of an authority not in bundle":  {set: Set{Serving: first.Serving}, now: began, wantAuthorities: 1, wantAgain: due},
		"serving broken, successor good": {set: Set{Next: staged.Next, Bundle: staged.Bundle}, now: due, wantServing: &staged.Next, wantAuthorities: 2, wantAgain: due.Add(Brief.Renewal)},
		"successor broken":               {set: Set{Serving: first.Serving, Next: Pair{Key: []byte("x")}, Bundle: first.Bundle}, now: began, wantServing: &first.Serving, wantAuthorities: 1, wantAgain: due},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, again := renew(t, test.set, test.now)
			if test.wantServing != nil && !got.Serving.equal(*test.wantServing) {
				t.Error("it serves another certificate")
			}
			if test.wantServing == nil && got.Serving.equal(test.set.Serving) {
				t.Error("it serves the same certificate")
			}
			if !verifies(t, got.Serving, got.Bundle, test.now) {
				t.Error("what it serves cannot be verified by the bundle")
			}
			if has := len(got.Next.Certificate) > 0; has != test.wantNext {
				t.Errorf("it has a successor: %t", has)
			}
			if test.wantNext && !verifies(t, got.Next, got.Bundle, test.now) {
				t.Error("the successor cannot be verified by the bundle")
			}
			if n := authorities(got.Bundle); n != test.wantAuthorities {
				t.Errorf("%d authorities, want %d", n, test.wantAuthorities)
			}
			if !again.Equal(test.wantAgain) {
				t.Errorf("again at %v, want %v", again, test.wantAgain)
			}
			if test.wantSame && !got.Equal(test.set) {
				t.Error("it changed")
			}
			if !FromData(got.Data()).Equal(got) {
				t.Error("a Secret does not keep it as it is")
			}
		})
	}
}

// TestOtherHost: a certificate for another host is not served.
func TestOtherHost(t *testing.T) {
	t.Parallel()
	first, _ := renew(t, Set{}, began)
	got, _, err := Brief.Renew(first, []string{"other.clinic-a.svc"}, began)
	if err != nil || got.Serving.equal(first.Serving) {
		t.Errorf("it serves the certificate of another host (%v)", err)
	}
	if _, _, err := Brief.Renew(Set{}, nil, began); err == nil {
		t.Error("a certificate for no host is made")
	}
}

// TestRotationKeepsEveryClient walks a year of renewals: a client whose bundle is half an hour old, and a server whose certificate
// is a day old, go on to understand each other.
func TestRotationKeepsEveryClient(t *testing.T) {
	t.Parallel()
	s, again := renew(t, Set{}, began)
	seen, at := []Set{s}, []time.Time{began}
	rotations := 0
	for now := began; now.Before(began.Add(365 * 24 * time.Hour)); now = next(now, at[len(at)-1], again) {
		if !now.Before(again) {
			before := s.Serving
			if s, again = renew(t, s, now); !s.Serving.equal(before) {
				rotations++
			}
		}
		if !seen[len(seen)-1].Equal(s) {
			seen, at = append(seen, s), append(at, now)
		}
		client, server := as(seen, at, now.Add(-30*time.Minute)), as(seen, at, now.Add(-24*time.Hour))
		if !verifies(t, s.Serving, client.Bundle, now) {
			t.Fatalf("%v: a client of before does not trust the server", now)
		}
		if !verifies(t, server.Serving, s.Bundle, now) {
			t.Fatalf("%v: a server of before is not trusted", now)
		}
		if n := authorities(s.Bundle); n > 3 {
			t.Fatalf("%v: %d authorities", now, n)
		}
	}
	if rotations != 6 {
		t.Errorf("%d rotations in a year", rotations)
	}
}

// next is when to look after now: each ten minutes for a day and an hour after a change, then each day.
func next(now, changed, again time.Time) time.Time {
	if now.Sub(changed) <= 25*time.Hour {
		return now.Add(10 * time.Minute)
	}
	day := now.Add(24 * time.Hour)
	if again.After(now) && again.Before(day) {
		return again
	}
	return day
}

// as is what there was at a time.
func as(seen []Set, at []time.Time, when time.Time) Set {
	found := seen[0]
	for i, began := range at {
		if !began.After(when) {
			found = seen[i]
		}
	}
	return found
}

// TestAuthoritySignsNothingElse: it is an authority, for leaves alone, and its key is in no Set.
func TestAuthoritySignsNothingElse(t *testing.T) {
	t.Parallel()
	s, _ := renew(t, Set{}, began)
	block, _ := pem.Decode(s.Bundle)
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !authority.IsCA || authority.MaxPathLen != 0 || !authority.MaxPathLenZero || authority.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("authority: %+v", authority)
	}
	for name, value := range s.Data() {
		if name != PrivateKeyKey && bytes.Contains(value, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a key", name)
		}
	}
	leaf, err := s.Serving.valid(hosts, s.Bundle, began)
	if err != nil || leaf.IsCA {
		t.Errorf("the leaf is an authority, or: %v", err)
	}
}

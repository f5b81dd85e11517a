package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func keyRing(t *testing.T, current string, keys map[string][]byte) *KeyRing {
	t.Helper()
	r, err := NewKeyRing(current, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, keyLength) }

// TestRotation: what the previous key wrapped is unwrapped while it is in the ring, and named so that it is wrapped anew.
func TestRotation(t *testing.T) {
	t.Parallel()
	seed := freshSeed(t)
	before := keyRing(t, "2026-01", map[string][]byte{"2026-01": key(1)})
	both := keyRing(t, "2026-07", map[string][]byte{"2026-01": key(1), "2026-07": key(2)})
	after := keyRing(t, "2026-07", map[string][]byte{"2026-07": key(2)})
	wrapped, err := before.Wrap("clinic-a", seed, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, mark, by, err := both.Unwrap("clinic-a", wrapped)
	if err != nil || !got.Equal(seed) || mark != 1 || by != "2026-01" || by == both.Current() {
		t.Fatalf("mark %d, key %s, %v", mark, by, err)
	}
	again, err := both.Wrap("clinic-a", got, mark)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, by, err := after.Unwrap("clinic-a", again); err != nil || !got.Equal(seed) || by != after.Current() {
		t.Errorf("key %s, %v", by, err)
	}
	if _, _, by, err := after.Unwrap("clinic-a", wrapped); !errors.Is(err, ErrNoKey) || by != "2026-01" {
		t.Errorf("without the old key: key %s, %v", by, err)
	}
}

// TestMisuseOfWraps: a wrapped seed is one tenant's, and no file.
func TestMisuseOfWraps(t *testing.T) {
	t.Parallel()
	r := keyRing(t, "k", map[string][]byte{"k": key(1)})
	wrapped, err := r.Wrap("clinic-a", freshSeed(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(i int) []byte {
		b := bytes.Clone(wrapped)
		b[(i+len(b))%len(b)] ^= 1
		return b
	}
	other := keyRing(t, "k", map[string][]byte{"k": key(2)})
	for name, tc := range map[string]struct {
		ring    *KeyRing
		tenant  string
		wrapped []byte
		want    error
	}{
		"another tenant":     {r, "clinic-b", wrapped, ErrDamaged},
		"same id, other key": {other, "clinic-a", wrapped, ErrDamaged},
		"truncated":          {r, "clinic-a", wrapped[:len(wrapped)-1], ErrDamaged},
		"two bytes":          {r, "clinic-a", wrapped[:2], ErrDamaged},
		"empty":              {r, "clinic-a", nil, ErrDamaged},
		"newer":              {r, "clinic-a", changed(0), ErrNewer},
		"unknown key":        {r, "clinic-a", changed(2), ErrNoKey},
		"changed":            {r, "clinic-a", changed(-1), ErrDamaged},
	} {
		if _, _, _, err := tc.ring.Unwrap(tc.tenant, tc.wrapped); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, err := r.OpenFile("clinic-a", wrapped); !errors.Is(err, ErrDamaged) {
		t.Errorf("a wrapped seed opens as a file: %v", err)
	}
	file, err := r.SealFile("index", []byte("secret"))
	if err != nil || !IsSealedFile(file) || IsSealedFile([]byte("{}")) || IsSealedFile(nil) {
		t.Fatalf("%x, %v", file, err)
	}
	if _, err := r.OpenFile("shard", file); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file opens under another name: %v", err)
	}
}

// TestLoadKeyRing reads a mounted Secret's folder, and says what is wrong without showing a key.
func TestLoadKeyRing(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("Q", 31)
	for name, tc := range map[string]struct {
		files map[string]string
		want  string // in the error; "" for none
	}{
		"raw and base64":  {map[string]string{"current": "a\n", "a": string(key('A')), "b": base64.StdEncoding.EncodeToString(key('B')) + "\n", "..data": "x"}, ""},
		"nothing":         {nil, "current"},
		"no current":      {map[string]string{"a": string(key('A'))}, "current"},
		"current is gone": {map[string]string{"current": "b", "a": string(key('A'))}, `"b"`},
		"short":           {map[string]string{"current": "a", "a": secret}, "want 32 bytes"},
		"long":            {map[string]string{"current": "a", "a": strings.Repeat(secret, 9)}, "want 32 bytes"},
		"a bad name":      {map[string]string{"current": "a", "a b": string(key('A'))}, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := LoadKeyRing(dir)
			if tc.want == "" {
				if err != nil || r.Current() != "a" || len(r.keys) != 2 {
					t.Errorf("%v", err)
				}
				return
			}
			if !errors.Is(err, ErrNoKeys) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := LoadKeyRing(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

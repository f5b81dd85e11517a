package postgres

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func TestAttemptsRoundTrip(t *testing.T) {
	t.Parallel()
	want := []delivery.Attempt{
		{Number: 1, Started: time.Unix(0, 1), Duration: time.Second, StatusCode: 503, Reason: "StatusCode"},
		{Number: 2, Started: time.Unix(1800000000, 5), Duration: -time.Nanosecond},
	}
	got, err := decodeAttempts(encodeAttempts(want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzDecodeAttempts(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeAttempts([]delivery.Attempt{{Number: 3, Started: time.Unix(9, 9), StatusCode: 200, Reason: "x"}}))
	f.Add([]byte{1, 0, 0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeAttempts(b)
		if err != nil || len(list) == 0 {
			return
		}
		again, err := decodeAttempts(encodeAttempts(list))
		if err != nil || !cmp.Equal(list, again) {
			t.Errorf("%x became %+v, then %+v, %v", b, list, again, err)
		}
	})
}

func TestBodyRoundTrip(t *testing.T) {
	t.Parallel()
	for _, body := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte{0xff, 0}, 1000)} {
		for _, sealed := range []bool{false, len(body) > delivery.SealedExtra} {
			var got delivery.Event
			err := decodeBody(&got, encodeBody(&delivery.Event{Body: body, Sealed: sealed}))
			if err != nil || !bytes.Equal(got.Body, body) || got.Sealed != sealed {
				t.Errorf("%x became %x, %v", body, got.Body, err)
			}
		}
	}
	for name, damaged := range map[string][]byte{"short": {1, 0}, "newer": {2, 0, 0, 1}, "of a newer codec": {1, 2, 0, 1}, "encrypted": {1, 0, 7, 1}, "short sealed": {1, 1, 0, 1}} {
		if err := decodeBody(&delivery.Event{}, damaged); err == nil {
			t.Errorf("a %s record was read", name)
		}
	}
}

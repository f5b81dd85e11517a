package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Level is how much is recorded. Each level has what those below it have.
type Level int

// The levels, the least first.
const (
	None   Level = iota
	Writes       // replays, cancellations, sending now
	Reads        // and lists, watches, and reading a delivery with its payload
	All          // and publishing
)

var levels = []string{"None", "Writes", "Reads", "All"}

// ParseLevel returns the level of a name: None, Writes, Reads or All.
func ParseLevel(name string) (Level, error) {
	i := slices.Index(levels, name)
	if i < 0 {
		return None, fmt.Errorf("%q is no level: want %s", name, strings.Join(levels, ", "))
	}
	return Level(i), nil
}

// Record is something that somebody did. Its texts are cut to 512 bytes.
type Record struct {
	// Action is what was asked for, such as list, get, replay, cancel or publish.
	Action string
	// User that asked, "" where nobody is asked who they are; Source is the client's address.
	User, Source string
	// Namespace of the deliveries, and the id of the one that it is about; "" for several.
	Namespace, Delivery string
	// Subscription that was pulled, "" for others.
	Subscription string
	// Status of the HTTP answer.
	Status int
}

// line is a record as it is written, but for its hash.
type line struct {
	// Audit is the version of the format.
	Audit     int    `json:"audit"`
	Trail     string `json:"trail"`
	Seq       uint64 `json:"seq"`
	Time      string `json:"time"`
	Action    string `json:"action"`
	User      string `json:"user,omitempty"`
	Source    string `json:"source,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Delivery  string `json:"delivery,omitempty"`
	// Subscription is its name.
	Subscription string `json:"subscription,omitempty"`
	Status       int    `json:"status,omitempty"`
	// Lost is how many records found no place before this one.
	Lost uint64 `json:"lost,omitempty"`
}

// The actions of the trail itself.
const (
	actionStart, actionStop, actionLost = "start", "stop", "lost"

	version = 1
	// hashMark begins the last member of a line.
	hashMark = `,"hash":"`
	maxText  = 512
)

// digest is the hash of a record: SHA-256 over the hash before it and the line up to its own.
type digest [sha256.Size]byte

func (before digest) next(text []byte) digest {
	h := sha256.New()
	h.Write(before[:])
	h.Write(text)
	return digest(h.Sum(nil))
}

// sealed returns a line with its hash and a line feed, and the hash.
func (l *line) sealed(before digest) ([]byte, digest, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, before, fmt.Errorf("encode an audit record: %w", err)
	}
	text = text[:len(text)-1] // without the brace
	hash := before.next(text)
	text = append(text, hashMark...)
	text = hex.AppendEncode(text, hash[:])
	return append(text, "\"}\n"...), hash, nil
}

func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	text = text[:maxText]
	for !utf8.ValidString(text) && len(text) > maxText-utf8.UTFMax {
		text = text[:len(text)-1]
	}
	return text
}

func newLine(r *Record, at time.Time) line {
	return line{
		Audit: version, Time: at.UTC().Format(time.RFC3339Nano), Action: cut(r.Action), User: cut(r.User), Source: cut(r.Source),
		Namespace: cut(r.Namespace), Delivery: cut(r.Delivery), Subscription: cut(r.Subscription), Status: r.Status,
	}
}

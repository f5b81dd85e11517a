package audit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// Summary is what a trail amounts to.
type Summary struct {
	// Records that were verified, and Lost, those of which the trail itself says that they found no place.
	Records, Lost uint64
	// First and Last are the numbers of the first and the last record of the last trail; 1 is the begin of a trail.
	First, Last uint64
	// Hash of the last record, in hexadecimal, to compare with one that was kept elsewhere.
	Hash string
	// Stopped reports whether the trail ends with the stop of its process. One that does not was killed, runs, or was cut off.
	Stopped bool
}

// maxLine bounds a line: 6 texts of 512 bytes, each byte escaped, and the rest.
const maxLine = 64 << 10

// Verify reads trails, one behind the other, and returns an error that names the first line that was changed, taken out, put in or
// moved. Lines that are no records, such as a log's, are left out. A trail may begin anywhere, where older files were put aside: compare
// First and the hash of the file before.
func Verify(from io.Reader) (Summary, error) {
	var s Summary
	var last line
	var hash digest
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		text := lines.Bytes()
		if !bytes.HasPrefix(text, []byte(`{"audit":`)) {
			continue
		}
		l, body, said, err := parse(text)
		if err != nil {
			return s, fmt.Errorf("line %d: %w", n, err)
		}
		switch begins := s.Records == 0 || l.Trail != last.Trail; {
		case begins && l.Seq == 1 && l.Action == actionStart:
			hash, s.First = digest{}, 1
		case begins && s.Records == 0: // an older file has what was before: this line vouches for those behind it
			s.First = l.Seq
			s.count(&l, said)
			last, hash = l, said
			continue
		case begins:
			return s, fmt.Errorf("line %d: record %d of another trail, which has no begin here", n, l.Seq)
		case l.Seq != last.Seq+1:
			return s, fmt.Errorf("line %d: record %d follows record %d: records were taken out, put in or moved", n, l.Seq, last.Seq)
		}
		if hash = hash.next(body); hash != said {
			return s, fmt.Errorf("line %d: record %d has not the hash of what it says: it was changed, or one before it", n, l.Seq)
		}
		s.count(&l, hash)
		last = l
	}
	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("read the trail: %w", err)
	}
	return s, nil
}

func (s *Summary) count(l *line, hash digest) {
	s.Records++
	s.Lost += l.Lost
	s.Last, s.Hash, s.Stopped = l.Seq, hex.EncodeToString(hash[:]), l.Action == actionStop
}

// parse returns a record, the part of it that its hash is over, and that hash.
func parse(text []byte) (l line, body []byte, said digest, err error) {
	at := bytes.LastIndex(text, []byte(hashMark))
	if at < 0 || len(text) != at+len(hashMark)+hex.EncodedLen(len(said))+len(`"}`) {
		return l, nil, said, fmt.Errorf("a record that is cut off, or has no hash")
	}
	encoded := text[at+len(hashMark) : len(text)-len(`"}`)]
	if _, err := hex.Decode(said[:], encoded); err != nil {
		return l, nil, said, fmt.Errorf("a record whose hash is not hexadecimal")
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return l, nil, said, fmt.Errorf("a record that is no JSON: %w", err)
	}
	if l.Audit != version {
		return l, nil, said, fmt.Errorf("a record of format %d: this program knows format %d", l.Audit, version)
	}
	return l, text[:at], said, nil
}

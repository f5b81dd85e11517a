package settings

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Key is the key of the Secret SecretName that holds the document.
const Key = "settings.json"

const (
	// format is the version of the document; see the package comment.
	format = 1
	// maxBytes bounds a document. The largest that the schema allows is about 16 KiB.
	maxBytes = 256 << 10
)

// SecretName is the name of the Secret that holds a dispatcher's settings, in its namespace.
func SecretName(dispatcher string) string { return "eventflow-dispatcher-" + dispatcher + "-settings" }

// document is Settings as they are written down. A field that is missing means the default.
type document struct {
	Format         int           `json:"format"`
	Generation     int64         `json:"generation"`
	MaxEventBytes  int           `json:"maxEventBytes"`
	OutageGrace    text          `json:"outageGrace"`
	Delivered      text          `json:"retentionDelivered"`
	Failed         text          `json:"retentionFailed"`
	Quota          routing.Quota `json:"quota"`
	Egress         egress        `json:"egress"`
	EventResources []string      `json:"eventResources,omitempty"`
}

type egress struct {
	AllowHTTP    bool           `json:"allowHTTP,omitempty"`
	MinTLS       uint16         `json:"minTLS,omitempty"`
	AllowedCIDRs []netip.Prefix `json:"allowedCIDRs,omitempty"`
	DeniedCIDRs  []netip.Prefix `json:"deniedCIDRs,omitempty"`
	AllowedPorts []uint16       `json:"allowedPorts,omitempty"`
}

// text is a duration that is written like 1h30m0s.
type text time.Duration

func (t text) MarshalText() ([]byte, error) { return []byte(time.Duration(t).String()), nil }

func (t *text) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*t = text(d)
	return err
}

// Encode returns the settings as the Secret holds them. Equal settings give equal bytes. It fails if a dispatcher could
// not work by them.
func (s *Settings) Encode() ([]byte, error) {
	err := s.Check()
	var b []byte
	if err == nil {
		b, err = json.Marshal(s.document())
	}
	if err != nil {
		return nil, fmt.Errorf("encode the settings: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote. It fails if a dispatcher cannot work by it, or must not without knowing more.
func Decode(b []byte) (*Settings, error) {
	s, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("decode the settings: %w", err)
	}
	return s, nil
}

func decode(b []byte) (*Settings, error) {
	if len(b) > maxBytes {
		return nil, fmt.Errorf("%d bytes are more than %d", len(b), maxBytes)
	}
	defaults := Defaults()
	d := defaults.document()
	d.Format = 0
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	if d.Format != format {
		return nil, fmt.Errorf("format %d is not known, %d is", d.Format, format)
	}
	s := d.settings()
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Settings) document() document {
	return document{
		Format: format, Generation: s.Generation, MaxEventBytes: s.MaxEventBytes, OutageGrace: text(s.OutageGrace),
		Delivered: text(s.Delivered), Failed: text(s.Failed), Quota: s.Quota, Egress: egress(s.Egress), EventResources: s.EventResources,
	}
}

func (d *document) settings() *Settings {
	return &Settings{
		Generation: d.Generation, MaxEventBytes: d.MaxEventBytes, OutageGrace: time.Duration(d.OutageGrace),
		Delivered: time.Duration(d.Delivered), Failed: time.Duration(d.Failed), Quota: d.Quota, Egress: Egress(d.Egress),
		EventResources: d.EventResources,
	}
}

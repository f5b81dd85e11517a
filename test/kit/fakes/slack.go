package fakes

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Slack is the method chat.postMessage of Slack's Web API: POST, a bearer token, JSON with channel and text. It answers 200
// also when it refuses, with ok false and an error; 429 with Retry-After when it is asked too often.
type Slack struct {
	*Provider
	token    string
	channels map[string]bool

	mu      sync.Mutex
	limited bool
}

// maxSlackText is how long a text may be, in characters, before Slack refuses it.
const maxSlackText = 40_000

// slackControl is what Slack reads as markup: a link, a mention or a command. Texts escape it as &lt; and &gt;.
var slackControl = regexp.MustCompile(`<[^>]*>`)

// NewSlack starts a fake of a workspace with the channels that the bot of the token is in.
func NewSlack(t testing.TB, now func() time.Time, token string, channels ...string) *Slack {
	t.Helper()
	f := &Slack{token: token, channels: map[string]bool{}}
	for _, name := range channels {
		f.channels[name] = true
	}
	f.Provider = start(t, now, f.answer)
	return f
}

// Limit makes Slack answer that it is asked too often.
func (f *Slack) Limit(limited bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limited = limited
}

// Leave takes the bot out of a channel.
func (f *Slack) Leave(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.channels, channel)
}

// Join takes the bot into a channel.
func (f *Slack) Join(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.channels[channel] = true
}

func (f *Slack) answer(r Request) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.limited:
		a := slackError("ratelimited")
		a.status, a.header = http.StatusTooManyRequests, map[string]string{"Retry-After": "1"}
		return a
	case r.Path != "/api/chat.postMessage":
		return slackError("unknown_method")
	case r.Method != http.MethodPost:
		return slackError("invalid_post_type")
	case r.bearer() == "":
		return slackError("not_authed")
	case r.bearer() != f.token:
		return slackError("invalid_auth")
	case !r.isJSON():
		return slackError("invalid_post_type")
	}
	fields, ok := r.object()
	if !ok {
		return slackError("invalid_json")
	}
	channel, said := text(fields, "channel"), text(fields, "text")
	switch {
	case !f.channels[channel]:
		return slackError("channel_not_found")
	case strings.TrimSpace(said) == "":
		return slackError("no_text")
	case len([]rune(said)) > maxSlackText:
		return slackError("msg_too_long")
	case slackControl.MatchString(said): // Slack would take it, and show something else than was meant
		return slackError("fake_text_is_not_escaped")
	}
	return answer{status: http.StatusOK, document: map[string]any{
		"ok": true, "channel": "C0123456789", "ts": "1503435956.000247", "message": map[string]any{"type": "message", "subtype": "bot_message", "text": said},
		"warning": "missing_charset", "response_metadata": map[string]any{"warnings": []string{"missing_charset"}},
	}}
}

func slackError(code string) answer {
	return answer{status: http.StatusOK, document: map[string]any{"ok": false, "error": code}}
}

package fakes

import (
	"fmt"
	"net/http"
	"net/mail"
	"sync"
	"testing"
	"time"
)

// Postmark is Postmark's Email API: POST /email, the header X-Postmark-Server-Token, Accept and Content-Type
// application/json, a document with From, To, Subject and TextBody or HtmlBody. It answers 200 with ErrorCode 0, 401 for a
// token that it does not know, 422 with an ErrorCode for a message that it does not take.
type Postmark struct {
	*Provider
	token   string
	senders map[string]bool // confirmed Sender Signatures

	mu       sync.Mutex
	inactive map[string]bool // recipients that bounced or complained
	sent     int
}

// NewPostmark starts a fake of a server with the addresses that it may send from.
func NewPostmark(t testing.TB, now func() time.Time, token string, senders ...string) *Postmark {
	t.Helper()
	f := &Postmark{token: token, senders: map[string]bool{}, inactive: map[string]bool{}}
	for _, address := range senders {
		f.senders[address] = true
	}
	f.Provider = start(t, now, f.answer)
	return f
}

// Deactivate makes an address one to which Postmark does not send any more.
func (f *Postmark) Deactivate(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inactive[address] = true
}

func (f *Postmark) answer(r Request) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Path != "/email" || r.Method != http.MethodPost:
		return postmarkError(http.StatusNotFound, 404, "The requested resource was not found.")
	case r.Header.Get("X-Postmark-Server-Token") != f.token:
		return postmarkError(http.StatusUnauthorized, 10, "Request does not contain a valid Server token.")
	case !r.isJSON() || r.Header.Get("Accept") != "application/json":
		return postmarkError(http.StatusUnprocessableEntity, 409, "The 'Accept' and 'Content-Type' headers must be 'application/json'.")
	}
	fields, ok := r.object()
	if !ok {
		return postmarkError(http.StatusUnprocessableEntity, 402, "Received invalid JSON input.")
	}
	return f.send(fields)
}

func (f *Postmark) send(fields map[string]any) answer {
	from, errFrom := mail.ParseAddress(text(fields, "From"))
	to, errTo := mail.ParseAddress(text(fields, "To"))
	stream := text(fields, "MessageStream")
	switch {
	case errFrom != nil:
		return postmarkError(http.StatusUnprocessableEntity, 300, "Invalid 'From' address.")
	case errTo != nil:
		return postmarkError(http.StatusUnprocessableEntity, 300, "Invalid 'To' address.")
	case !f.senders[from.Address]:
		return postmarkError(http.StatusUnprocessableEntity, 400, "The 'From' address is not a Sender Signature on your account.")
	case text(fields, "TextBody") == "" && text(fields, "HtmlBody") == "":
		return postmarkError(http.StatusUnprocessableEntity, 300, "Provide either email TextBody or HtmlBody or both.")
	case stream != "" && stream != "outbound":
		return postmarkError(http.StatusUnprocessableEntity, 1235, "The 'MessageStream' provided does not exist on this server.")
	case f.inactive[to.Address]:
		return postmarkError(http.StatusUnprocessableEntity, 406, "You tried to send to recipient(s) that have been marked as inactive.")
	}
	f.sent++
	return answer{status: http.StatusOK, document: map[string]any{
		"To": to.Address, "SubmittedAt": "2026-01-15T09:00:00Z", "MessageID": fmt.Sprintf("00000000-0000-4000-8000-%012d", f.sent), "ErrorCode": 0, "Message": "OK",
	}}
}

func postmarkError(status, code int, message string) answer {
	return answer{status: status, document: map[string]any{"ErrorCode": code, "Message": message}}
}

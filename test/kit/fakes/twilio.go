package fakes

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"testing"
	"time"
)

// Twilio is the Messages resource of Twilio's REST API of 2010-04-01: POST /2010-04-01/Accounts/{sid}/Messages.json, Basic
// authentication with the account's SID and token, a form with To, From and Body. It answers 201 with the message, or an
// error with Twilio's code.
type Twilio struct {
	*Provider
	account, token string
	senders        map[string]bool

	mu   sync.Mutex
	dead map[string]bool // numbers that do not exist
	sent int
}

// TwilioSID is an account's SID as Twilio makes them.
const TwilioSID = "AC0123456789abcdef0123456789abcdef"

// maxSMS is how long a Body may be, in characters.
const maxSMS = 1600

var e164 = regexp.MustCompile(`^\+[1-9]\d{6,14}$`)

// NewTwilio starts a fake with one account and the numbers that it may send from.
func NewTwilio(t testing.TB, now func() time.Time, token string, senders ...string) *Twilio {
	t.Helper()
	f := &Twilio{account: TwilioSID, token: token, senders: map[string]bool{}, dead: map[string]bool{}}
	for _, number := range senders {
		f.senders[number] = true
	}
	f.Provider = start(t, now, f.answer)
	return f
}

// MessagesURL is where messages are created.
func (f *Twilio) MessagesURL() string {
	return f.URL + "/2010-04-01/Accounts/" + f.account + "/Messages.json"
}

// Disconnect makes a number one that does not exist.
func (f *Twilio) Disconnect(number string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead[number] = true
}

func (f *Twilio) answer(r Request) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(f.account+":"+f.token))
	switch {
	case r.Path != "/2010-04-01/Accounts/"+f.account+"/Messages.json":
		return twilioError(http.StatusNotFound, 20404, "The requested resource "+r.Path+" was not found")
	case r.Header.Get("Authorization") != basic:
		return twilioError(http.StatusUnauthorized, 20003, "Authenticate")
	case r.Method != http.MethodPost:
		return twilioError(http.StatusMethodNotAllowed, 20004, "Method not allowed")
	case r.mediaType() != "application/x-www-form-urlencoded":
		return twilioError(http.StatusBadRequest, 21604, "A 'To' phone number is required.") // no form, no parameters
	}
	form, err := url.ParseQuery(r.Body)
	if err != nil {
		return twilioError(http.StatusBadRequest, 21604, "A 'To' phone number is required.")
	}
	return f.create(form.Get("To"), form.Get("From"), form.Get("Body"))
}

func (f *Twilio) create(to, from, body string) answer {
	switch {
	case to == "":
		return twilioError(http.StatusBadRequest, 21604, "A 'To' phone number is required.")
	case !e164.MatchString(to) || f.dead[to]:
		return twilioError(http.StatusBadRequest, 21211, "Invalid 'To' Phone Number: "+to)
	case from == "":
		return twilioError(http.StatusBadRequest, 21603, "A 'From' phone number is required.")
	case !f.senders[from]:
		return twilioError(http.StatusBadRequest, 21606, "The 'From' phone number provided is not a valid message-capable Twilio phone number for this destination.")
	case body == "":
		return twilioError(http.StatusBadRequest, 21602, "Message body is required.")
	case len([]rune(body)) > maxSMS:
		return twilioError(http.StatusBadRequest, 21617, "The concatenated message body exceeds the 1600 character limit")
	}
	f.sent++
	return answer{status: http.StatusCreated, document: map[string]any{
		"sid": fmt.Sprintf("SM%032x", f.sent), "account_sid": f.account, "to": to, "from": from, "body": body,
		"status": "queued", "direction": "outbound-api", "error_code": nil, "error_message": nil,
	}}
}

func twilioError(status, code int, message string) answer {
	return answer{status: status, document: map[string]any{
		"code": code, "message": message, "status": status, "more_info": fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code),
	}}
}

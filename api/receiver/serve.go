package receiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
)

// ServeHTTP answers a delivery by the handler of its type.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.serve(w, request, func(ctx context.Context, w http.ResponseWriter, a *attempt, e Event, key string) (int, error) {
		handler := r.routes.find(e.Type)
		if handler == nil {
			return answer(w, nil, false), nil
		}
		err := r.once(ctx, key, a, func(ctx context.Context) error {
			if err := handler(ctx, e); err != nil {
				return &handlerError{err}
			}
			return nil
		})
		return answer(w, err, a.duplicate), err
	})
}

// Middleware returns a handler that calls next with verified deliveries alone, each once. next finds the body as it was
// sent, and the event by FromContext. The delivery is handled if next answers 2xx. An answer of 410 is made 500, so that
// nothing that next passes on, such as the answer of another service, stops the subscription.
func (r *Receiver) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.serve(w, request, func(ctx context.Context, w http.ResponseWriter, a *attempt, e Event, key string) (int, error) {
			watched := &watcher{ResponseWriter: w}
			err := r.once(ctx, key, a, func(ctx context.Context) error {
				inner := request.WithContext(context.WithValue(ctx, eventKey{}, e))
				inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(e.Raw)), int64(len(e.Raw))
				next.ServeHTTP(watched, inner)
				return watched.result()
			})
			if watched.status == 0 && (err != nil || a.duplicate) {
				return answer(w, err, a.duplicate), err
			}
			return orDefault(watched.status, 200), err
		})
	})
}

// serve does what ServeHTTP and Middleware share. run answers, and returns the status and why it is not 2xx.
func (r *Receiver) serve(w http.ResponseWriter, request *http.Request, run func(context.Context, http.ResponseWriter, *attempt, Event, string) (int, error)) {
	ctx := request.Context()
	outcome, a := Outcome{Status: 500, Err: errPanicked}, attempt{}
	defer func() { // also if the handler panics
		outcome.Duplicate, outcome.Handled, outcome.StoreErr = a.duplicate, a.handled, a.storeErr
		r.config.Observe(ctx, outcome)
	}()
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	default:
		outcome.Status, outcome.Err = answer(w, errBusy, false), errBusy
		return
	}
	e, key, err := r.accept(w, request)
	outcome.DeliveryID, outcome.EventID, outcome.Type, outcome.Attempt = e.DeliveryID, e.ID, e.Type, e.Attempt
	if err != nil {
		outcome.Status, outcome.Err = answer(w, err, false), err
		return
	}
	outcome.Status, outcome.Err = run(ctx, w, &a, e, key)
}

// accept reads and verifies a request. The key is what deduplication remembers.
func (r *Receiver) accept(w http.ResponseWriter, request *http.Request) (Event, string, error) {
	if request.Method != http.MethodPost {
		return Event{}, "", errMethod
	}
	if !isJSON(request.Header) {
		return Event{}, "", errMedia
	}
	body, err := r.read(w, request)
	if err != nil {
		return Event{}, "", err
	}
	v, err := r.verify(request.Header, body)
	if err != nil {
		return Event{}, "", err
	}
	e, err := read(request.Header, body, v)
	e.DeliveryID = v.id
	return e, v.key, err
}

// read reads the body within its bounds.
func (r *Receiver) read(w http.ResponseWriter, request *http.Request) ([]byte, error) {
	if request.ContentLength > r.config.MaxBytes {
		return nil, errTooLarge
	}
	// Not every ResponseWriter has deadlines. One that stayed would end the request's context while a handler works.
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(r.config.ReadTimeout)) == nil {
		defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, r.config.MaxBytes))
	if err == nil {
		return body, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errTooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errTooSlow
	}
	return nil, errBroken
}

// isJSON reports whether the body is declared as JSON in UTF-8, or as nothing, and is not compressed.
func isJSON(h http.Header) bool {
	for _, coding := range h.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return false
		}
	}
	text := h.Get("Content-Type")
	if text == "" {
		return true
	}
	media, parameters, err := mime.ParseMediaType(text)
	if err != nil || (media != "application/json" && !strings.HasSuffix(media, "+json")) {
		return false
	}
	charset, given := parameters["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// watcher notes the status that a handler answers, and keeps a 410 from the dispatcher.
type watcher struct {
	http.ResponseWriter
	status int
	gone   bool
}

// WriteHeader is http.ResponseWriter's.
func (w *watcher) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // those below are not the answer yet
		if status == http.StatusGone {
			w.gone, status = true, 500
		}
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (w *watcher) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(200)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *watcher) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// result is nil if the answer was 2xx, which it is if the handler wrote nothing.
func (w *watcher) result() error {
	switch {
	case w.gone:
		return &handlerError{errGoneOff}
	case w.status != 0 && (w.status < 200 || w.status > 299):
		return &handlerError{errStatus(w.status)}
	}
	return nil
}

package receiver_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/receiver"
	"github.com/clinikapi/eventflow/api/receiver/receivertest"
)

// Appointment is what this clinic needs of one.
type Appointment struct {
	ID string `json:"resourceId"`
}

// exampleTB stands for the *testing.T that an example does not have.
type exampleTB struct{ testing.TB }

func (exampleTB) Helper()                  {}
func (exampleTB) Context() context.Context { return context.Background() }

func Example() {
	_ = os.Setenv("WEBHOOK_SECRET", receivertest.Secret)

	hooks, err := receiver.New(receiver.Config{
		Secrets: []string{os.Getenv("WEBHOOK_SECRET")},
		On: receiver.Routes{
			"appointment.*": receiver.Typed(func(_ context.Context, e receiver.Event, a Appointment) error {
				fmt.Println(e.Type, a.ID)
				return nil
			}),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("POST /hooks", hooks)

	request := receivertest.Delivery{Type: "appointment.created", Data: Appointment{ID: "appt_1"}}.Request(exampleTB{}, "/hooks")
	w := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(w, request)
	fmt.Println(w.Code)
	// Output:
	// appointment.created appt_1
	// 200
}

// TestTheGuideIsTested holds the examples of docs/receiving.md to the files that run them.
func TestTheGuideIsTested(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	files := map[string]string{
		"go": "api/receiver/example_test.go", "ts": "receivers/node/test/example.test.mjs", "python": "receivers/python/test_example.py",
	}
	guide, err := os.ReadFile(filepath.Join(root, "docs", "receiving.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(string(guide), -1)
	if len(blocks) < len(files) {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		source, err := os.ReadFile(filepath.Join(root, files[block[1]]))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(source), block[2]) {
			t.Errorf("%s does not run this example:\n%s", files[block[1]], block[2])
		}
	}
}

package pebble_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// TestKilledOnAFullVolume kills a process that works on a volume while another program takes and gives back all of its
// space. Whatever was acknowledged is still there.
func TestKilledOnAFullVolume(t *testing.T) {
	t.Parallel()
	v := newVolume(t, 96<<20)
	random := rand.New(rand.NewPCG(7, 7))
	var acks []event.DeliveryID
	ends := map[string]int{}
	for round := range 12 {
		if round%3 == 1 {
			v.fill(0)
		}
		got, end := v.suffer(round, random)
		acks = append(acks, got...)
		ends[end]++
		if round%3 == 1 {
			v.unfill()
		}
	}
	t.Logf("%d deliveries were acknowledged; the processes ended: %v", len(acks), ends)
	if len(acks) < 1000 {
		t.Errorf("only %d deliveries were acknowledged", len(acks))
	}
	v.clock.Set(time.Now())
	v.open()
	for _, id := range acks {
		if _, err := v.Get(t.Context(), "clinic-a", id); err != nil {
			t.Fatalf("%s, which was acknowledged: %v", id, err)
		}
		if _, err := v.Event(t.Context(), id.Event); err != nil {
			t.Fatalf("the event of %s, which was acknowledged: %v", id, err)
		}
	}
	v.close()
}

// maxSilence is how long a process on the volume may print nothing.
const maxSilence = 3 * time.Second

// suffer runs a process on the volume for a while. In every third round the volume fills up meanwhile.
func (v *volume) suffer(round int, random *rand.Rand) (acks []event.DeliveryID, end string) {
	v.Helper()
	command := exec.CommandContext(v.Context(), os.Args[0])
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", volumeVariable, v.dir, round))
	stdout, err := command.StdoutPipe()
	if err != nil {
		v.Fatal(err)
	}
	var stderr bytes.Buffer
	command.Stderr = &stderr
	if err := command.Start(); err != nil {
		v.Fatal(err)
	}
	stop := 200 + random.IntN(3000)
	filled := false
	defer func() {
		if filled {
			v.unfill()
		}
	}()
	kill := func() {
		if err := command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			v.Error(err)
		}
	}
	// On a volume that a stranger filled to the last byte, a process may wait for space until it is killed.
	silence := time.AfterFunc(maxSilence, kill)
	defer silence.Stop()
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		silence.Reset(maxSilence)
		if id, err := event.ParseDeliveryID(lines.Text()); err == nil {
			acks = append(acks, id)
		}
		if n == stop/2 && round%3 == 2 {
			v.fill(0)
			filled = true
		}
		if n == stop {
			kill()
		}
	}
	err = command.Wait()
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == -1:
		return acks, "killed"
	case errors.As(err, &exit) && exit.ExitCode() == exitFull:
		return acks, "waits"
	case errors.As(err, &exit) && exit.ExitCode() == 1 && strings.Count(stderr.String(), "\n") <= 2:
		return acks, "stopped"
	default:
		v.Errorf("round %d: %v\n%s", round, err, stderr.String())
		return acks, "unknown"
	}
}

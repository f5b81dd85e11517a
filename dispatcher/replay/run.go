package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/query"
)

const (
	// firstRetry and longestRetry bound the wait after a failure of the store or of the API server.
	firstRetry, longestRetry = 500 * time.Millisecond, 15 * time.Second
	// fullPause is how often it is checked whether a tenant's quota has room again, roomPause whether memory and places have.
	fullPause, roomPause = time.Second, 50 * time.Millisecond
	// closing is how long after the creation of an object its second ends, at most, and a little for the clocks.
	closing = 1500 * time.Millisecond
	// lastWord bounds the writing of the position at a stop.
	lastWord = 2 * time.Second
)

// Why a run ends before all is done.
var (
	errSuspended = errors.New("the replay is suspended")
	errGone      = errors.New("there is no such replay any more, or nothing left of it")
	errNotLead   = errors.New("another process runs the replays")
	// errAgain is of a chunk that could not begin, for want of memory.
	errAgain = errors.New("there is no memory for the chunk")
)

// run is one replay under way.
type run struct {
	*Runner
	entry
	part
	object *v1alpha1.WebhookReplay
	tenant string
	limit  *rate.Limiter
	// resumed is since when deliveries behind the position may have been done, by a run that was interrupted; nil once the
	// work is past them. repeated are those of the batch's subscription.
	resumed  *metav1.Time
	repeated map[event.DeliveryID]bool
	passed   int // deliveries since it was resumed
	unsaved  int // deliveries since the progress was written
	savedAt  time.Time
	saved    v1alpha1.ReplayProgress
}

// run runs a replay until it is finished, or stopped.
func (r *Runner) run(ctx context.Context, e entry) {
	u := &run{Runner: r, entry: e}
	logger := r.Logger.WithValues("namespace", e.namespace, "replay", e.name)
	err := u.begin(ctx)
	for delay := firstRetry; err == nil; delay = min(2*delay, longestRetry) {
		failed := u.work(ctx)
		if failed == nil {
			logger.Info("A replay is finished", "selected", *u.progress.Selected, "done", *u.progress.Done)
			return
		}
		if stops(ctx, failed) {
			err = failed
			break
		}
		u.resume()
		logger.Info("A replay waits; trying again", "error", failed.Error())
		if err = u.say(ctx, v1alpha1.ReplayWaiting, v1alpha1.ReasonStoreUnavailable); err == nil {
			err = wait(ctx, delay)
		}
	}
	if errors.Is(err, errSuspended) {
		u.progress.State, u.progress.Reason = v1alpha1.ReplaySuspended, ""
	}
	if u.object != nil && !errors.Is(err, errGone) && !errors.Is(err, errNotLead) && !same(u.progress, u.saved) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
		defer cancel()
		_ = u.write(ctx) // a restart goes on behind the position that stands
	}
	logger.V(1).Info("A replay stopped", "reason", err.Error())
}

func stops(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errSuspended) || errors.Is(err, errGone) || errors.Is(err, errNotLead)
}

// begin reads how far the replay is, and whose deliveries it is about.
func (u *run) begin(ctx context.Context) error {
	for delay := firstRetry; ; delay = min(2*delay, longestRetry) {
		if err := u.check(ctx); err != nil {
			return err
		}
		err := u.read(ctx)
		if err == nil || stops(ctx, err) {
			return err
		}
		u.Logger.V(1).Info("Reading a replay failed; trying again", "error", err.Error())
		if err := wait(ctx, delay); err != nil {
			return err
		}
	}
}

func (u *run) read(ctx context.Context) error {
	found, err := u.Client.Get(ctx, u.namespace, u.name)
	switch {
	case apierrors.IsNotFound(err):
		u.Runner.known.drop(u.namespace, u.name)
		return errGone
	case err != nil:
		return fmt.Errorf("read the replay: %w", err)
	}
	if err := u.take(found); err != nil {
		return err
	}
	u.part, _ = partOf(found, u.Name)
	u.saved = u.progress
	u.resume()
	tenant, known, err := u.Tenant(ctx, u.namespace)
	switch {
	case err != nil:
		return fmt.Errorf("find the tenant: %w", err)
	case !known:
		return errGone
	}
	u.tenant, u.batch.Tenant = tenant, tenant
	u.limit = rate.NewLimiter(rate.Limit(u.part.rate), u.chunk())
	return nil
}

// resume makes the run look for what was done behind the position: by another process, or by a chunk that failed.
func (u *run) resume() {
	if u.repeats() {
		u.resumed, u.passed = u.progress.PositionTime, 0
	}
}

// take notes what the API server has now, which check goes by, and reports whether there is still something to do.
func (u *run) take(found *v1alpha1.WebhookReplay) error {
	u.Runner.known.put(found)
	if _, open := partOf(found, u.Name); !open || found.UID != u.uid {
		return errGone
	}
	u.object = found
	return nil
}

// check reports whether the run may go on, by what the watch said.
func (u *run) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now, ok := u.Runner.known.get(&u.entry)
	switch {
	case !u.Leads():
		return errNotLead
	case !ok:
		return errGone
	case now.suspended:
		return errSuspended
	}
	if u.limit != nil && now.pace != u.part.rate {
		u.part.rate = now.pace
		u.limit.SetLimit(rate.Limit(now.pace))
		u.limit.SetBurst(u.chunk())
	}
	return nil
}

// work does all that is left. An error other than those that end the run may pass.
func (u *run) work(ctx context.Context) error {
	if u.progress.Selected == nil {
		if err := u.closed(ctx); err != nil {
			return err
		}
		if err := u.countAll(ctx); err != nil {
			return err
		}
	}
	for _, name := range u.left() {
		if u.progress.Subscription != name {
			u.progress.Subscription, u.progress.Position = name, ""
		}
		u.batch.Subscription = name
		if err := u.workOn(ctx); err != nil {
			return err
		}
	}
	before := u.progress
	u.finish()
	err := u.save(ctx)
	if err != nil {
		u.progress = before // suspended, say, before anybody heard that it is finished
	}
	return err
}

// closed waits until nothing that is accepted belongs to the set any more, or for as long as that takes if the clocks agree.
func (u *run) closed(ctx context.Context) error {
	left := min(u.batch.Until.Sub(u.Deliveries.Now()), closing)
	if left <= 0 {
		return nil
	}
	return wait(ctx, left)
}

// countAll counts what is selected, anew if it was interrupted.
func (u *run) countAll(ctx context.Context) error {
	if err := u.say(ctx, v1alpha1.ReplayCounting, ""); err != nil {
		return err
	}
	selected := int64(0)
	for _, name := range u.subscriptions {
		u.batch.Subscription = name
		for after, last := (event.DeliveryID{}), false; !last; {
			var ids []event.DeliveryID
			err := u.inTurn(ctx, func() (err error) {
				ids, err = u.Deliveries.Page(ctx, u.batch, after, query.MaxLimit)
				return err
			})
			if err != nil {
				return err
			}
			selected += int64(len(ids))
			if last = len(ids) < query.MaxLimit; !last {
				after = ids[len(ids)-1]
			}
		}
	}
	u.progress.Selected = &selected
	u.count(0, 0)
	return u.say(ctx, v1alpha1.ReplayRunning, "")
}

// workOn does what is left of the subscription that the batch is about.
func (u *run) workOn(ctx context.Context) error {
	u.repeated = nil
	for first := true; ; first = false {
		after, err := u.position()
		if err != nil {
			return err
		}
		limit := u.page()
		var ids []event.DeliveryID
		err = u.inTurn(ctx, func() (err error) {
			if first && u.resumed != nil {
				if u.repeated, err = u.Deliveries.Repeated(ctx, u.batch, after, u.resumed.Time); err != nil {
					return err
				}
			}
			ids, err = u.Deliveries.Page(ctx, u.batch, after, limit)
			return err
		})
		if err != nil {
			return err
		}
		for rest := ids; len(rest) > 0; {
			n := min(len(rest), u.chunk())
			if err := u.doChunk(ctx, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		if len(ids) < limit {
			return nil
		}
	}
}

// position is the delivery that was seen last; zero at the beginning of a subscription.
func (u *run) position() (after event.DeliveryID, err error) {
	if u.progress.Position == "" {
		return after, nil
	}
	if after, err = event.ParseDeliveryID(u.progress.Position); err != nil {
		return after, fmt.Errorf("status.dispatchers: position: %w", err)
	}
	return after, nil
}

// doChunk does a few deliveries and moves the position behind them.
func (u *run) doChunk(ctx context.Context, ids []event.DeliveryID) error {
	todo := make([]event.DeliveryID, 0, len(ids))
	for _, id := range ids {
		if !u.repeated[id] {
			todo = append(todo, id)
		}
	}
	done, err := u.do(ctx, todo)
	if err != nil {
		if !u.repeats() { // those are counted when they are met again
			u.count(done, 0)
		}
		return err
	}
	u.count(done+len(ids)-len(todo), len(todo)-done)
	u.progress.Position = ids[len(ids)-1].String()
	u.unsaved += len(ids)
	if u.passed += len(ids); u.passed > pageLimit+query.MaxChunk {
		u.resumed, u.repeated = nil, nil
	}
	return nil
}

// do does deliveries by the rate, once there is room for them.
func (u *run) do(ctx context.Context, ids []event.DeliveryID) (done int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	if err := u.limit.WaitN(ctx, min(len(ids), u.limit.Burst())); err != nil {
		return 0, err
	}
	for {
		if err := u.waitForQuota(ctx); err != nil {
			return 0, err
		}
		if time.Since(u.savedAt) > pageTime || u.unsaved+len(ids) > pageLimit {
			if err := u.say(ctx, v1alpha1.ReplayRunning, ""); err != nil {
				return 0, err
			}
		}
		err := u.inTurn(ctx, func() error {
			return u.charged(func() (err error) {
				done, err = u.Deliveries.Apply(ctx, u.batch, ids)
				return err
			})
		})
		if !errors.Is(err, errAgain) {
			return done, err
		}
		if err := wait(ctx, roomPause); err != nil {
			return 0, err
		}
	}
}

// waitForQuota waits while the tenant has as much pending as it may.
func (u *run) waitForQuota(ctx context.Context) error {
	for u.Full != nil && !u.batch.Cancel && u.Full(u.tenant) {
		if err := u.say(ctx, v1alpha1.ReplayWaiting, v1alpha1.ReasonQuotaExceeded); err != nil {
			return err
		}
		if err := wait(ctx, fullPause); err != nil {
			return err
		}
		if err := u.check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// inTurn calls f once the tenant has a place, if the run may go on then.
func (u *run) inTurn(ctx context.Context, f func() error) error {
	if err := u.places.Acquire(ctx, u.tenant, 1); err != nil {
		return err
	}
	defer u.places.Release(u.tenant, 1)
	if err := u.check(ctx); err != nil {
		return err
	}
	return f()
}

// charged calls f with the tenant's memory charged with what f holds at most. It waits for nothing: others want the place.
func (u *run) charged(f func() error) error {
	if u.batch.Cancel {
		return f()
	}
	bytes := min(query.BodiesAtOnce*int64(u.MaxEventBytes()), u.Memory.Limit()/(2*chunksAtOnce))
	if !u.Memory.Take(u.tenant, bytes) {
		return errAgain
	}
	defer u.Memory.Give(u.tenant, bytes)
	return f()
}

// say makes the API server have the progress with the given state. It writes nothing that stands already.
func (u *run) say(ctx context.Context, state v1alpha1.ReplayProgressState, reason string) error {
	u.progress.State, u.progress.Reason = state, reason
	if same(u.progress, u.saved) && state == v1alpha1.ReplayWaiting && time.Since(u.savedAt) < longestRetry {
		return nil
	}
	return u.save(ctx)
}

// save makes the API server have the progress, however long it is out of reach, and notes what it says.
func (u *run) save(ctx context.Context) error {
	for delay := firstRetry; ; delay = min(2*delay, longestRetry) {
		err := u.write(ctx)
		if err == nil || stops(ctx, err) {
			return err
		}
		u.Logger.V(1).Info("Writing how far a replay is failed; it waits", "namespace", u.namespace, "replay", u.name, "error", err.Error())
		if err := wait(ctx, delay); err != nil {
			return err
		}
		if err := u.check(ctx); err != nil {
			return err
		}
	}
}

// write writes the progress once.
func (u *run) write(ctx context.Context) error {
	finished := u.progress.State == v1alpha1.ReplayFinished
	if !finished && u.resumed == nil {
		u.progress.PositionTime = ptr.To(metav1.NewTime(u.Deliveries.Now().Truncate(time.Second)))
	}
	found, err := u.Client.Apply(ctx, u.object, u.progress)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // forced, so only the uid can conflict
		u.Runner.known.drop(u.namespace, u.name)
		return errGone
	case err != nil:
		return fmt.Errorf("write how far the replay is: %w", err)
	}
	u.saved, u.savedAt, u.unsaved = *u.progress.DeepCopy(), time.Now(), 0
	if finished {
		u.Runner.known.put(found)
		return nil
	}
	return u.take(found)
}

// same reports whether two progresses say the same of all but the time.
func same(a, b v1alpha1.ReplayProgress) bool {
	return a.State == b.State && a.Reason == b.Reason && a.Subscription == b.Subscription && a.Position == b.Position &&
		ptr.Equal(a.Selected, b.Selected) && ptr.Equal(a.Done, b.Done) && ptr.Equal(a.PassedOver, b.PassedOver)
}

package main

import "time"

// usage is what a run took of the machine.
type usage struct {
	Seconds float64
	// Microseconds of CPU per delivery, by process. The generator also is the raw loop's sender.
	Dispatcher, Receiver, Generator float64
	// Others is how many cores other processes kept busy meanwhile: a figure taken while they do is too low.
	Others float64
}

// watch measures from now on.
type watch struct {
	start                                 time.Time
	self, receiver, dispatcher            *process
	cpuSelf, cpuReceiver, cpuDisp, cpuAll time.Duration
}

// watch begins to measure; dispatcher may be nil.
func (b *bench) watch(dispatcher *process) *watch {
	w := &watch{start: time.Now(), self: b.self, receiver: b.receiver.process, dispatcher: dispatcher}
	w.cpuSelf, w.cpuReceiver, w.cpuDisp, w.cpuAll = w.read()
	return w
}

func (w *watch) read() (self, receiver, dispatcher, all time.Duration) {
	if w.dispatcher != nil {
		dispatcher = w.dispatcher.cpu()
	}
	return w.self.cpu(), w.receiver.cpu(), dispatcher, machineBusy()
}

// done returns what was used since, shared by so many deliveries.
func (w *watch) done(deliveries int) usage {
	elapsed := time.Since(w.start)
	self, receiver, dispatcher, all := w.read()
	self, receiver, dispatcher, all = self-w.cpuSelf, receiver-w.cpuReceiver, dispatcher-w.cpuDisp, all-w.cpuAll
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(deliveries, 1)) }
	return usage{
		Seconds: elapsed.Seconds(), Dispatcher: each(dispatcher), Receiver: each(receiver), Generator: each(self),
		Others: max(0, float64(all-self-receiver-dispatcher)/float64(elapsed)),
	}
}

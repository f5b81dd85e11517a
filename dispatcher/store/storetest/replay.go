package storetest

var replayTests = map[string]func(*fixture){}

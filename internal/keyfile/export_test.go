package keyfile

// Reading makes a File as it is while a read hangs.
func (f *File) Reading(hangs bool) { f.reading.Store(hangs) }

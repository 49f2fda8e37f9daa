package revocation

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/koreauth/koreauth/internal/strictjson"
)

// A file of rules is a text file. Its first line is "koreauth revocations 1 " and the
// epoch, which is random and new in each file that begins empty. Each other line is a
// rule: the checksum (CRC-32C) of a JSON text, eight hexadecimal digits, a space, and
// the JSON text of a Receipt. Seq grows from line to line.
const (
	magic        = "koreauth revocations "
	formatStart  = magic + "1 "
	epochLength  = 32
	headerLength = len(formatStart) + epochLength + 1

	sumLength = 9       // eight digits and a space
	maxLine   = 1 << 20 // with its newline
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newHeader returns the first line of a new file.
func newHeader() []byte {
	var epoch [epochLength / 2]byte
	_, _ = rand.Read(epoch[:]) // It never fails.
	return formatHeader(hex.EncodeToString(epoch[:]))
}

func formatHeader(epoch string) []byte { return []byte(formatStart + epoch + "\n") }

var (
	errForeign = errors.New("it is not a file of revocations and is left as it is: give another path")
	errNewer   = errors.New("a newer version of koreauth wrote it: update this program")
	errHeader  = errors.New("line 1 is damaged: put back a copy of the file, or move the file away; lists that run still know its rules, and write them to a new file")
)

// readHeader returns the epoch of a file that begins with these bytes. It is empty if
// the file is, or ends within its first line, which happens if the machine stops when
// the file is made.
func readHeader(start []byte) (epoch string, err error) {
	text := string(start[:min(len(start), headerLength)])
	if common := min(len(text), len(magic)); text[:common] != magic[:common] {
		return "", errForeign
	}
	if common := min(len(text), len(formatStart)); text[:common] != formatStart[:common] {
		return "", errNewer
	}
	digits := text[min(len(text), len(formatStart)):]
	ended := len(digits) == epochLength+1 && digits[epochLength] == '\n'
	if ended {
		digits = digits[:epochLength]
	}
	if strings.Trim(digits, "0123456789abcdef") != "" || len(digits) > epochLength {
		return "", errHeader
	}
	if !ended {
		return "", nil
	}
	return digits, nil
}

// maxReason is the maximum length of Reason and By together, so that no line is over
// maxLine, even if each byte is escaped.
const maxReason = 128 << 10

// checkLine returns an error if a receipt has no line, or its line would be read as
// another receipt.
func checkLine(r Receipt) error {
	for _, value := range []string{r.Rule.Issuer, r.Rule.Token, r.Rule.Client, r.Rule.Account, r.Rule.Subject} {
		if !utf8.ValidString(value) {
			return errors.New("revocation: Rule has a value that is not valid UTF-8: no claim matches it, so correct it")
		}
	}
	for _, at := range []time.Time{r.At, r.Rule.IssuedBefore, r.Rule.Until} {
		if year := at.UTC().Year(); year < 0 || year > 9999 {
			return errors.New("revocation: Rule has a time after the year 9999, or Until depends on one: set earlier times")
		}
	}
	if r.At.UTC().Year() > 9998 {
		return errors.New("revocation: Receipt.At is after the year 9998: no later rule could be appended, so set when the rule was appended first")
	}
	if len(r.Rule.Reason)+len(r.Rule.By) > maxReason {
		return fmt.Errorf("revocation: Rule.Reason and Rule.By have over %d bytes: shorten them", maxReason)
	}
	return nil
}

// formatLine returns the line of a receipt, and the receipt as it will be read.
func formatLine(r Receipt) ([]byte, Receipt, error) {
	if err := checkLine(r); err != nil {
		return nil, Receipt{}, err
	}
	text, err := json.Marshal(utc(r))
	if err == nil {
		r, err = readReceipt(string(text)) // Reason and By are valid UTF-8 from here on.
	}
	if err != nil {
		return nil, Receipt{}, fmt.Errorf("revocation: Rule cannot be written as JSON: %w", err)
	}
	sum := formatSum(crc32.Checksum(text, castagnoli))
	return slices.Concat(sum[:], text, []byte("\n")), r, nil
}

// formatSum returns the start of a line.
func formatSum(sum uint32) (text [sumLength]byte) {
	const digits = "0123456789abcdef"
	for i := range sumLength - 1 {
		text[i] = digits[sum>>(28-4*i)&15]
	}
	text[sumLength-1] = ' '
	return text
}

// line is one rule in a file.
type line struct {
	number int    // of the line; the first rule has 2
	offset int64  // where it begins
	whole  []byte // with its newline; it must not be kept
	text   string // the JSON text of the receipt
	sum    uint32
	seq    uint64
	at     time.Time
}

// receipt returns the receipt. A line that is not damaged, but has something else, was
// written by a newer version.
func (l *line) receipt() (Receipt, error) {
	r, err := readReceipt(l.text)
	if err != nil || !selectsOnce(r.Rule) {
		return Receipt{}, fmt.Errorf("line %d: %w", l.number, errNewer)
	}
	return r, nil
}

// selectsOnce reports whether a rule has one of the members that select tokens.
func selectsOnce(r Rule) bool {
	n := 0
	for _, value := range []string{r.Token, r.Client, r.Account, r.Subject, r.Hash} {
		if value != "" {
			n++
		}
	}
	if r.Everything {
		n++
	}
	_, _, err := keyOf(r)
	return n == 1 && err == nil && (r.Issuer == "") == (r.Hash != "")
}

// parse reads whole, and reports whether the line is undamaged.
func (l *line) parse() bool {
	if len(l.whole) <= sumLength {
		return false
	}
	text := l.whole[sumLength : len(l.whole)-1]
	l.sum = crc32.Checksum(text, castagnoli)
	if sum := formatSum(l.sum); string(sum[:]) != string(l.whole[:sumLength]) {
		return false
	}
	l.text = string(text)
	return l.parseStart()
}

// parseStart reads Seq and At, without the rest if that is written as json.Marshal
// does.
func (l *line) parseStart() bool {
	if rest, ok := strings.CutPrefix(l.text, `{"seq":`); ok {
		number, rest, _ := strings.Cut(rest[:min(len(rest), 100)], `,"at":"`)
		moment, _, ok := strings.Cut(rest, `","rule":{`)
		seq, err := strconv.ParseUint(number, 10, 64)
		at, err2 := time.Parse(time.RFC3339, moment)
		if ok && err == nil && err2 == nil {
			l.seq, l.at = seq, at
			return true
		}
	}
	r, err := readReceipt(l.text)
	l.seq, l.at = r.Seq, r.At
	return err == nil
}

// checkTail looks at whole, the damaged end of a file. It reports whether that may be a
// line that was stored, and not one whose writing was interrupted. It returns an error
// if a line that was stored is at its start or its end, so that the newline between that
// and the rest is damaged.
func (l *line) checkTail() (stored bool, err error) {
	tries := 0
	for i := range l.whole {
		before, after := line{whole: l.whole[:i+1]}, line{whole: l.whole[i:]}
		ends := bytes.HasSuffix(l.whole[:i], []byte("}}"))
		starts := i > 0 && bytes.HasPrefix(after.whole[min(sumLength, len(after.whole)):], []byte(`{"seq":`))
		if ends || starts {
			tries++
		}
		switch {
		case tries > 1000: // It is not worth the time.
			return true, &damage{l.number}
		case ends && before.parse() && i+1 == len(l.whole):
			return true, nil
		case ends && before.parse(), starts && after.parse():
			return true, &damage{l.number}
		}
	}
	return bytes.HasSuffix(l.whole, []byte("\n")), nil
}

// readReceipt is [Receipt.UnmarshalJSON] in one pass, for a million of them.
func readReceipt(text string) (Receipt, error) {
	var r Receipt
	ok, members := true, 0
	in := strictjson.ReadObject(text)
	for in.More() {
		members++
		switch in.Name() {
		case "seq":
			seq, err := strconv.ParseUint(in.Number(), 10, 64)
			r.Seq, ok = seq, ok && err == nil
		case "at":
			ok = readTime(in, &r.At) && ok
		case "rule":
			ok = readMembers(in, &r.Rule) && ok
		default:
			ok = false
			in.Skip()
		}
	}
	if err := in.End(); err != nil || !ok || members != 3 {
		return Receipt{}, errors.New("revocation: not a receipt of this version")
	}
	return r, nil
}

func readMembers(in *strictjson.Reader, r *Rule) bool {
	if in.Peek() != '{' {
		in.Skip()
		return false
	}
	ok := true
	for in.Enter(); in.More(); {
		switch in.Name() {
		case "issuer":
			ok = readText(in, &r.Issuer) && ok
		case "token":
			ok = readText(in, &r.Token) && ok
		case "client":
			ok = readText(in, &r.Client) && ok
		case "account":
			ok = readText(in, &r.Account) && ok
		case "subject":
			ok = readText(in, &r.Subject) && ok
		case "hash":
			ok = readText(in, &r.Hash) && ok
		case "reason":
			ok = readText(in, &r.Reason) && ok
		case "by":
			ok = readText(in, &r.By) && ok
		case "everything":
			ok = readFlag(in, &r.Everything) && ok
		case "lift":
			ok = readFlag(in, &r.Lift) && ok
		case "issued_before":
			ok = readTime(in, &r.IssuedBefore) && ok
		case "until":
			ok = readTime(in, &r.Until) && ok
		default:
			ok = false
			in.Skip()
		}
	}
	return ok
}

func readText(in *strictjson.Reader, to *string) (ok bool) {
	*to, ok = in.String()
	return ok
}

func readFlag(in *strictjson.Reader, to *bool) bool {
	text := in.Raw()
	*to = text == "true"
	return *to || text == "false"
}

func readTime(in *strictjson.Reader, to *time.Time) bool {
	text, ok := in.String()
	at, err := time.Parse(time.RFC3339, text)
	*to = at
	return ok && err == nil
}

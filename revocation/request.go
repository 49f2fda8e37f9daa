package revocation

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/koreauth/koreauth/internal/secret"
)

// refusal is the answer to a request that was not done.
type refusal struct {
	status            int
	code, description string
}

func (r *refusal) Error() string { return r.description }

func (r *refusal) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{r.code, r.description})
}

// invalid is the refusal of a request with a fault.
func invalid(format string, args ...any) error {
	text := strings.NewReplacer("revocation: ", "", "\n", "; ").Replace(fmt.Sprintf(format, args...))
	return &refusal{http.StatusBadRequest, "invalid_request", strings.ToUpper(text[:1]) + text[1:]}
}

// askedRule returns the rule that a body asks for.
func askedRule(text, by string, lift bool) (Rule, error) {
	rule, err := readRuleMembers(text, askedMembers)
	if err != nil {
		return Rule{}, invalid("%s", err)
	}
	for _, m := range textMembers(&rule) {
		if secret.HasJWT(*m.value) {
			return Rule{}, invalid(`member %q has a whole token: give its "jti" as "token", and leave it out of the other members`, m.name)
		}
	}
	if len(rule.Reason) > reasonLimit || strings.ContainsFunc(rule.Reason, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return Rule{}, invalid(`member "reason" must be printable text of up to %d bytes, on one line`, reasonLimit)
	}
	now := time.Now()
	if !lift && !rule.Until.IsZero() && !rule.Until.After(now) {
		return Rule{}, invalid(`member "until" is in the past, so the rule would be forgotten at once: give a later time, or leave it out`)
	}
	rule.By, rule.Lift = by, lift
	// The store completes the rule by its own clock. This only finds the faults.
	if _, err := rule.Complete(now); err != nil {
		return Rule{}, invalid("%s", jsonNames.Replace(err.Error()))
	}
	return rule, nil
}

// jsonNames replaces the names of fields in the errors of Rule.Complete.
var jsonNames = strings.NewReplacer(
	"Rule.", "", "Rule ", "the rule ", "IssuedBefore", `"issued_before"`, "Issuer", `"issuer"`, "Token", `"token"`, "Client", `"client"`,
	"Account", `"account"`, "Subject", `"subject"`, "Everything", `"everything"`, "Until", `"until"`,
)

// textMember is a text of a rule, and its name in JSON.
type textMember struct {
	name  string
	value *string
}

func textMembers(r *Rule) []textMember {
	return []textMember{
		{"issuer", &r.Issuer}, {"token", &r.Token}, {"client", &r.Client}, {"account", &r.Account},
		{"subject", &r.Subject}, {"reason", &r.Reason}, {"by", &r.By},
	}
}

// readBody returns the body of a request.
func readBody(r *http.Request) (string, error) {
	tooLarge := &refusal{http.StatusRequestEntityTooLarge, "request_too_large", "The body must have at most 64 KiB"}
	switch {
	case !isJSON(r.Header):
		return "", &refusal{http.StatusUnsupportedMediaType, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"}
	case r.ContentLength > maxBody:
		return "", tooLarge
	case r.Body == nil:
		return "", nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if len(body) > maxBody {
		return "", tooLarge
	}
	if err != nil {
		return "", invalid("the body was not received completely")
	}
	return string(body), nil
}

// isJSON reports whether the client says that the body is JSON, or nothing about it.
func isJSON(header http.Header) bool {
	types := header.Values("Content-Type")
	if len(types) > 1 || len(header.Values("Content-Encoding")) > 0 {
		return false
	}
	if len(types) == 0 {
		return true
	}
	media, parameters, _ := strings.Cut(strings.ToLower(types[0]), ";")
	name, charset, _ := strings.Cut(strings.TrimSpace(parameters), "=")
	return strings.TrimSpace(media) == "application/json" && (name == "" || name == "charset" && strings.Trim(charset, `"`) == "utf-8")
}

// readDryRun returns the parameter dry-run.
func readDryRun(r *http.Request) (bool, error) {
	values, err := readQuery(r, "dry-run")
	if err != nil {
		return false, err
	}
	value, given := values["dry-run"]
	if given && value != "true" && value != "false" {
		return false, invalid(`parameter "dry-run" must be true or false`)
	}
	return value == "true", nil
}

// readRange returns the parameters after and limit.
func readRange(r *http.Request) (after uint64, limit int, err error) {
	values, err := readQuery(r, "after", "limit")
	if err != nil {
		return 0, 0, err
	}
	if text, given := values["after"]; given {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, 0, invalid(`parameter "after" must be the "seq" of a rule, or the "next" of a page`)
		}
	}
	limit = pageSize
	if text, given := values["limit"]; given {
		if limit, _ = strconv.Atoi(text); limit < 1 || limit > maxPageSize {
			return 0, 0, invalid(`parameter "limit" must be a number from 1 to %d`, maxPageSize)
		}
	}
	return after, limit, nil
}

// readQuery returns the query parameters. One that is not known, or there twice, is an
// error: a misspelled dry-run would append a rule.
func readQuery(r *http.Request, known ...string) (map[string]string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query cannot be parsed: escape its values")
	}
	values := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(known, name) {
			return nil, invalid("%s", unknownName("parameter", name, known))
		}
		if len(query[name]) > 1 {
			return nil, invalid("parameter %q must be there once", name)
		}
		values[name] = query[name][0]
	}
	return values, nil
}

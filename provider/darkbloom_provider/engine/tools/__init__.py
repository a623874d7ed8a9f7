"""Tool calls as model families write them: one small streaming reader for each.

A reader takes the text of one call after its opening marker, a character at a time. It gives the
name first and then the arguments, word for word: nothing is repaired or invented. What turns out to
be no call is given back as text.

| Module | Reads |
|---|---|
| `reading` | what every reader promises |
| `json_value` | where a JSON value ends, found while it comes |
| `json_calls` | `{"name": …, "arguments": …}`, alone, tagged, or in a list; Mistral's headers |
| `held` | payloads that are no JSON and are read when they are complete |
| `xml_calls` | Qwen's functions and GLM's keys and values |
| `gemma_calls` | Gemma's `call:name{…}` |
| `pythonic` | LFM2's `[name(key="value")]` |
| `families` | which of them a model speaks, and how its calls are forced |
"""

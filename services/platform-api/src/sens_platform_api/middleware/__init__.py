"""The layers around the application, one a file, each plain ASGI (ASGI specification 3.0), so that streamed answers pass chunk by chunk.

From the outside to the inside:

- `turns`: lets requests of strangers take turns, so that they do not hold up the others
- (HTTPS only, and pages of other origins: `app`)
- `request_log`: names the request, counts and logs it, adds the headers of every answer
- `problems_for_errors`: answers with problem details when a layer or the application fails
- `time_limits`: ends requests that take too long
- `targets`: refuses paths, queries and headers that can't be used
- `options`: answers OPTIONS
- `authentication`: finds the caller by the key, before any of the body is read
- `methods`: refuses a method that the path does not take, and makes a HEAD of a GET
- `bodies`: reads a body that the path takes, and no other
"""

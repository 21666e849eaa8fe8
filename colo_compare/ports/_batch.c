/*
 * Many messages in one call: the compiled form of ports/mmsg.py, which says what each name here means, and which
 * runs where there was no C compiler. It moves bytes and knows no rule: what a message is for, and what an error
 * means for the port, is decided in Python for both forms.
 *
 * The GIL is kept but where a call waits. No other call here blocks, and on the way back a thread that computes
 * could keep it for 5 ms (sys.getswitchinterval), in which frames wait.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stddef.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_PACKET
#define SOL_PACKET 263
#endif

enum {
    SMALLEST_BUFFER = 16, /* not one of the bytes objects of size 0 and 1, of which there is only one each */
    MOST_MESSAGES = 1024, /* UIO_MAXIOV, linux/uio.h */
    MOST_DESCRIPTORS = 64,
    CONTROL = CMSG_SPACE(sizeof(struct tpacket_auxdata)),
};

/* Buffers */

/*
 * Give the first `length` bytes of a buffer, which is a bytes object that nobody has seen yet.
 *
 * Where more than half of it is filled, that is the buffer itself, cut off: to copy 64 KiB takes as long as all
 * else that is done with them (13 % of the CPU time of a bulk transfer). Then *buffer is NULL. For less it is a
 * copy: the rest of a buffer, cut off from a small message that is kept, would be memory that nothing fits into.
 */
static PyObject *take(PyObject **buffer, Py_ssize_t length)
{
    if (length <= PyBytes_GET_SIZE(*buffer) / 2)
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(*buffer), length);
    PyObject *message = *buffer;
    *buffer = NULL;
    _PyBytes_Resize(&message, length);
    return message;
}

static int append(PyObject *list, PyObject *item)
{
    int failed = item == NULL || PyList_Append(list, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

/* MessageReceiver */

typedef struct {
    PyObject_HEAD
    unsigned count;
    unsigned used; /* headers that the last call has changed */
    Py_ssize_t slot, gap_start, gap_end;
    PyObject **buffers; /* of `slot` bytes, NULL where one was given away */
    struct mmsghdr *headers;
    struct iovec *vectors; /* two for each message */
    char *control;
    PyObject *tags;
} Receiver;

static int parse_gap(PyObject *gap, Py_ssize_t *start, Py_ssize_t *end)
{
    *start = *end = 0;
    if (gap == Py_None)
        return 0;
    if (!PyTuple_Check(gap)) {
        PyErr_SetString(PyExc_TypeError, "a gap is a tuple of two numbers");
        return -1;
    }
    if (!PyArg_ParseTuple(gap, "nn", start, end))
        return -1;
    if (*start < 0 || *end < *start) {
        PyErr_SetString(PyExc_ValueError, "a gap ends behind its start");
        return -1;
    }
    return 0;
}

static int check_count(Py_ssize_t count)
{
    if (count >= 1 && count <= MOST_MESSAGES)
        return 0;
    PyErr_Format(PyExc_ValueError, "1 to %d messages in one call", MOST_MESSAGES);
    return -1;
}

static void receiver_dealloc(Receiver *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->buffers)
        for (unsigned i = 0; i < self->count; i++)
            Py_XDECREF(self->buffers[i]);
    PyMem_Free(self->buffers);
    PyMem_Free(self->headers);
    PyMem_Free(self->vectors);
    PyMem_Free(self->control);
    Py_XDECREF(self->tags);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *receiver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"count", "slot", "gap", NULL};
    Py_ssize_t count, slot, gap_start, gap_end;
    PyObject *gap = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nn|O", names, &count, &slot, &gap) || check_count(count) ||
        parse_gap(gap, &gap_start, &gap_end))
        return NULL;
    if (slot < SMALLEST_BUFFER || slot < gap_end)
        return PyErr_Format(PyExc_ValueError, "a slot has at least %d bytes, and its gap inside", SMALLEST_BUFFER);
    Receiver *self = (Receiver *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->count = (unsigned)count;
    self->slot = slot;
    self->gap_start = gap_start;
    self->gap_end = gap_end;
    self->buffers = PyMem_Calloc(count, sizeof *self->buffers);
    self->headers = PyMem_Calloc(count, sizeof *self->headers);
    self->vectors = PyMem_Calloc(count, 2 * sizeof *self->vectors);
    self->control = PyMem_Calloc(count, CONTROL);
    self->tags = PyTuple_New(0);
    if (!self->buffers || !self->headers || !self->vectors || !self->control || !self->tags) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (unsigned i = 0; i < self->count; i++) {
        struct msghdr *header = &self->headers[i].msg_hdr;
        header->msg_iov = &self->vectors[2 * i];
        header->msg_iovlen = 2;
        header->msg_control = self->control + (size_t)i * CONTROL;
    }
    self->used = self->count;
    return (PyObject *)self;
}

/* Make everything that the last call has used ready for the next one. */
static int receiver_prepare(Receiver *self)
{
    for (unsigned i = 0; i < self->used; i++) {
        self->headers[i].msg_hdr.msg_controllen = CONTROL;
        if (self->buffers[i])
            continue;
        PyObject *buffer = PyBytes_FromStringAndSize(NULL, self->slot);
        if (!buffer) {
            self->used = self->count; /* the rest of them is still to be done */
            return -1;
        }
        char *data = PyBytes_AS_STRING(buffer);
        memset(data + self->gap_start, 0, self->gap_end - self->gap_start);
        self->vectors[2 * i] = (struct iovec){data, self->gap_start};
        self->vectors[2 * i + 1] = (struct iovec){data + self->gap_end, self->slot - self->gap_end};
        self->buffers[i] = buffer;
    }
    self->used = 0;
    return 0;
}

/* Give what PACKET_AUXDATA says of a message, NULL where it says nothing. */
static const struct tpacket_auxdata *auxiliary(struct msghdr *header)
{
    struct cmsghdr *part = CMSG_FIRSTHDR(header);
    if (!part || part->cmsg_level != SOL_PACKET || part->cmsg_type != PACKET_AUXDATA ||
        part->cmsg_len < CMSG_LEN(sizeof(struct tpacket_auxdata)))
        return NULL;
    return (const struct tpacket_auxdata *)CMSG_DATA(part);
}

/* Append message i, unless it does not fit, and what its tag was. */
static int receiver_take(Receiver *self, unsigned i, PyObject *messages, PyObject **tags)
{
    Py_ssize_t length = self->headers[i].msg_len;
    if (length > self->gap_start)
        length += self->gap_end - self->gap_start;
    if (length >= self->slot)
        return 0;
    const struct tpacket_auxdata *said = auxiliary(&self->headers[i].msg_hdr);
    if (said && said->tp_status & TP_STATUS_VLAN_VALID) {
        int known = (said->tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
        if (!*tags && !(*tags = PyList_New(0)))
            return -1;
        if (append(*tags, Py_BuildValue("(nii)", PyList_GET_SIZE(messages),
                                        known ? said->tp_vlan_tpid : 0, said->tp_vlan_tci)))
            return -1;
    }
    return append(messages, take(&self->buffers[i], length));
}

static PyObject *receiver_receive(Receiver *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "receive(fd, messages): a number and a list");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(args[0]);
    if ((fd == -1 && PyErr_Occurred()) || receiver_prepare(self))
        return NULL;
    int got;
    do {
        got = recvmmsg(fd, self->headers, self->count, MSG_DONTWAIT, NULL);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    self->used = (unsigned)got;
    PyObject *tags = NULL;
    int failed = 0;
    for (int i = 0; i < got && !failed; i++)
        failed = receiver_take(self, (unsigned)i, args[1], &tags);
    if (!failed && (tags || PyTuple_GET_SIZE(self->tags))) {
        PyObject *fixed = tags ? PyList_AsTuple(tags) : PyTuple_New(0);
        failed = !fixed;
        if (fixed)
            Py_SETREF(self->tags, fixed);
    }
    Py_XDECREF(tags);
    return failed ? NULL : PyLong_FromLong(got);
}

static PyMethodDef receiver_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receiver_receive, METH_FASTCALL,
     "Receive what is there behind the messages of a list; give how many the kernel gave."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef receiver_members[] = {
    {"tags", T_OBJECT_EX, offsetof(Receiver, tags), READONLY, "(index, TPID, TCI) of what had a VLAN tag."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_new, receiver_new},
    {Py_tp_dealloc, receiver_dealloc},
    {Py_tp_methods, receiver_methods},
    {Py_tp_members, receiver_members},
    {0, NULL},
};

static PyType_Spec receiver_spec = {
    .name = "colo_compare.ports._batch.MessageReceiver",
    .basicsize = sizeof(Receiver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = receiver_slots,
};

/* MessageSender */

typedef struct {
    PyObject_HEAD
    unsigned count;
    Py_ssize_t gap_start, gap_end;
    struct mmsghdr *headers;
    struct iovec *vectors; /* two for each message */
} Sender;

static void sender_dealloc(Sender *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->headers);
    PyMem_Free(self->vectors);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"count", "gap", NULL};
    Py_ssize_t count, gap_start, gap_end;
    PyObject *gap = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|O", names, &count, &gap) || check_count(count) ||
        parse_gap(gap, &gap_start, &gap_end))
        return NULL;
    Sender *self = (Sender *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->count = (unsigned)count;
    self->gap_start = gap_start;
    self->gap_end = gap_end;
    self->headers = PyMem_Calloc(count, sizeof *self->headers);
    self->vectors = PyMem_Calloc(count, 2 * sizeof *self->vectors);
    if (!self->headers || !self->vectors) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (unsigned i = 0; i < self->count; i++)
        self->headers[i].msg_hdr.msg_iov = &self->vectors[2 * i];
    return (PyObject *)self;
}

/* Read the arguments (fd, messages, start). The messages are bytes: to be checked one by one. */
static int parse_messages(PyObject *const *args, Py_ssize_t nargs, int *fd, Py_ssize_t *start)
{
    if (nargs != 3 || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "(fd, messages, start): a number, a list, a number");
        return -1;
    }
    *fd = (int)PyLong_AsLong(args[0]);
    *start = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return -1;
    if (*start < 0 || *start >= PyList_GET_SIZE(args[1])) {
        PyErr_SetString(PyExc_ValueError, "there is no message to begin with");
        return -1;
    }
    return 0;
}

static int check_bytes(PyObject *message)
{
    if (PyBytes_Check(message))
        return 0;
    PyErr_Format(PyExc_TypeError, "a message is bytes, not %.100s", Py_TYPE(message)->tp_name);
    return -1;
}

static PyObject *sender_send(Sender *self, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    Py_ssize_t start;
    if (parse_messages(args, nargs, &fd, &start))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(args[1]) - start;
    if (count > self->count)
        count = self->count;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *message = PyList_GET_ITEM(args[1], start + i);
        if (check_bytes(message))
            return NULL;
        char *data = PyBytes_AS_STRING(message);
        Py_ssize_t size = PyBytes_GET_SIZE(message);
        struct iovec *vectors = &self->vectors[2 * i];
        if (size > self->gap_end && self->gap_end > self->gap_start) {
            vectors[0] = (struct iovec){data, self->gap_start};
            vectors[1] = (struct iovec){data + self->gap_end, size - self->gap_end};
            self->headers[i].msg_hdr.msg_iovlen = 2;
        } else {
            vectors[0] = (struct iovec){data, size};
            self->headers[i].msg_hdr.msg_iovlen = 1;
        }
    }
    int sent;
    do {
        sent = sendmmsg(fd, self->headers, (unsigned)count, MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(sent);
}

static PyMethodDef sender_methods[] = {
    {"send", (PyCFunction)(void (*)(void))sender_send, METH_FASTCALL,
     "Send messages[start:]; give how many were sent, at least one."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sender_slots[] = {
    {Py_tp_new, sender_new},
    {Py_tp_dealloc, sender_dealloc},
    {Py_tp_methods, sender_methods},
    {0, NULL},
};

static PyType_Spec sender_spec = {
    .name = "colo_compare.ports._batch.MessageSender",
    .basicsize = sizeof(Sender),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = sender_slots,
};

/* MessageReader */

typedef struct {
    PyObject_HEAD
    Py_ssize_t slot;
    PyObject *buffer; /* NULL where it was given away */
} Reader;

static void reader_dealloc(Reader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->buffer);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"slot", NULL};
    Py_ssize_t slot;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &slot))
        return NULL;
    if (slot < SMALLEST_BUFFER)
        return PyErr_Format(PyExc_ValueError, "a slot has at least %d bytes", SMALLEST_BUFFER);
    Reader *self = (Reader *)type->tp_alloc(type, 0);
    if (self)
        self->slot = slot;
    return (PyObject *)self;
}

static PyObject *reader_read(Reader *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "read(fd, messages, limit): a number, a list, a number");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(args[0]);
    Py_ssize_t limit = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    while (PyList_GET_SIZE(args[1]) < limit) {
        if (!self->buffer && !(self->buffer = PyBytes_FromStringAndSize(NULL, self->slot)))
            return NULL;
        ssize_t size = read(fd, PyBytes_AS_STRING(self->buffer), (size_t)self->slot);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            return PyLong_FromLong(errno);
        if (append(args[1], take(&self->buffer, size)))
            return NULL;
    }
    return PyLong_FromLong(0);
}

static PyMethodDef reader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))reader_read, METH_FASTCALL,
     "Read messages behind those of a list until it has `limit`; give the error that ended it, or 0."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "colo_compare.ports._batch.MessageReader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = reader_slots,
};

/* Functions */

static PyObject *write_messages(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    Py_ssize_t start;
    (void)module;
    if (parse_messages(args, nargs, &fd, &start))
        return NULL;
    Py_ssize_t at = start;
    while (at < PyList_GET_SIZE(args[1])) {
        PyObject *message = PyList_GET_ITEM(args[1], at);
        if (check_bytes(message))
            return NULL;
        ssize_t size = write(fd, PyBytes_AS_STRING(message), (size_t)PyBytes_GET_SIZE(message));
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            break;
        at++;
    }
    return at == start ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(at - start);
}

static PyObject *size_of(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    if (nargs != 3 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "size_of(messages, start, end): a list and two numbers");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), end = PyLong_AsSsize_t(args[2]), size = 0;
    if (PyErr_Occurred())
        return NULL;
    if (start < 0 || end > PyList_GET_SIZE(args[0])) {
        PyErr_SetString(PyExc_ValueError, "there are not that many messages");
        return NULL;
    }
    for (Py_ssize_t i = start; i < end; i++) {
        PyObject *message = PyList_GET_ITEM(args[0], i);
        if (check_bytes(message))
            return NULL;
        size += PyBytes_GET_SIZE(message);
    }
    return PyLong_FromSsize_t(size);
}

static PyObject *readable(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    if (nargs != 2 || !PyList_Check(args[0]) || PyList_GET_SIZE(args[0]) > MOST_DESCRIPTORS) {
        PyErr_Format(PyExc_TypeError, "readable(descriptors, seconds): a list of at most %d, and a number",
                     MOST_DESCRIPTORS);
        return NULL;
    }
    struct pollfd polled[MOST_DESCRIPTORS];
    Py_ssize_t count = PyList_GET_SIZE(args[0]);
    double seconds = PyFloat_AsDouble(args[1]);
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        polled[i] = (struct pollfd){(int)PyLong_AsLong(PyList_GET_ITEM(args[0], i)), POLLIN, 0};
    if (PyErr_Occurred())
        return NULL;
    struct timespec limit = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    int found, error;
    Py_BEGIN_ALLOW_THREADS
    found = ppoll(polled, (nfds_t)count, &limit, NULL);
    error = errno;
    Py_END_ALLOW_THREADS
    if (found < 0 && error != EINTR) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (found < 0 && PyErr_CheckSignals())
        return NULL;
    PyObject *ready = PyList_New(0);
    for (Py_ssize_t i = 0; i < count && found > 0 && ready; i++)
        if (polled[i].revents && PyList_Append(ready, PyList_GET_ITEM(args[0], i)))
            Py_CLEAR(ready);
    return ready;
}

static PyMethodDef functions[] = {
    {"write_messages", (PyCFunction)(void (*)(void))write_messages, METH_FASTCALL,
     "Write messages[start:], one call each; give how many were written, at least one."},
    {"size_of", (PyCFunction)(void (*)(void))size_of, METH_FASTCALL, "Give the bytes of messages[start:end]."},
    {"readable", (PyCFunction)(void (*)(void))readable, METH_FASTCALL,
     "Give which descriptors are readable, as soon as one is."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    PyType_Spec *specs[] = {&receiver_spec, &sender_spec, &reader_spec};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromSpec(specs[i]);
        if (!type)
            return -1;
        int failed = PyModule_AddType(module, (PyTypeObject *)type);
        Py_DECREF(type);
        if (failed)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "colo_compare.ports._batch",
    .m_doc = "Many messages in one call: see ports/mmsg.py.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__batch(void)
{
    return PyModuleDef_Init(&definition);
}

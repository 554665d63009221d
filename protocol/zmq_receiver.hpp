/*
 * zmq_receiver.hpp - receives messages on sockets of pyzmq, which takes 1 us for each frame that it does not copy.
 *
 * As zmq_sender.hpp it calls the libzmq that pyzmq has loaded. Call everything with the GIL held.
 */
#ifndef AIOD_ZMQ_RECEIVER_HPP
#define AIOD_ZMQ_RECEIVER_HPP

#include "zmq_sender.hpp"

namespace aiod_zmq
{

/* libzmq's functions for messages that were received: the same for all of a process. */
struct ReceiveFunctions {
    int (*init)(Message *);
    int (*receive)(Message *, void *, int);
    size_t (*size)(const Message *);
    void *(*data)(Message *);
    int (*more)(const Message *);
    int (*get)(const Message *, int);
    const char *(*gets)(const Message *, const char *);
    int (*close)(Message *);
};

inline ReceiveFunctions receive_functions;

/* A frame where libzmq has put it: read-only, with the buffer protocol, and what is used here of zmq.Frame. */
class Frame
{
  public:
    Frame()
    {
        receive_functions.init(&message);
    }
    Frame(const Frame &) = delete;
    Frame &operator=(const Frame &) = delete;
    ~Frame()
    {
        receive_functions.close(&message);
    }

    size_t size() const
    {
        return receive_functions.size(&message);
    }

    char *data()
    {
        return static_cast<char *>(receive_functions.data(&message));
    }

    /* A number of libzmq's, or a text that belongs to the connection. */
    nb::object get(nb::handle what)
    {
        if (PyLong_Check(what.ptr())) {
            return nb::int_(receive_functions.get(&message, nb::cast<int>(what)));
        }
        const char *text = receive_functions.gets(&message, nb::cast<const char *>(what));

        if (text == nullptr) {
            throw nb::value_error("the connection has no such property");
        }
        return nb::str(text);
    }

    Message message;
};

inline int frame_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    auto *frame = nb::inst_ptr<Frame>(nb::handle(self));

    return PyBuffer_FillInfo(view, self, frame->data(), static_cast<Py_ssize_t>(frame->size()), 1, flags);
}

inline PyType_Slot frame_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void *>(frame_getbuffer)},
    {0, nullptr},
};

class Receiver
{
  public:
    Receiver(uintptr_t init, uintptr_t receive_at, uintptr_t size, uintptr_t data, uintptr_t more, uintptr_t get,
             uintptr_t gets, uintptr_t close)
    {
        receive_functions = {reinterpret_cast<decltype(ReceiveFunctions::init)>(init),
                             reinterpret_cast<decltype(ReceiveFunctions::receive)>(receive_at),
                             reinterpret_cast<decltype(ReceiveFunctions::size)>(size),
                             reinterpret_cast<decltype(ReceiveFunctions::data)>(data),
                             reinterpret_cast<decltype(ReceiveFunctions::more)>(more),
                             reinterpret_cast<decltype(ReceiveFunctions::get)>(get),
                             reinterpret_cast<decltype(ReceiveFunctions::gets)>(gets),
                             reinterpret_cast<decltype(ReceiveFunctions::close)>(close)};
    }

    /*
     * The frames of the next message, without waiting; the errno if there is none (EAGAIN). The first `leading` frames are
     * bytes, the others Frames. If there is no memory for one, the whole message is dropped: what is left of it must not be
     * taken for the next one.
     */
    nb::object receive(uintptr_t socket, size_t leading)
    {
        release_sent();
        auto *from = reinterpret_cast<void *>(socket);
        bool more = false;

        try {
            return receive_frames(from, leading, more);
        } catch (...) {
            while (more) {
                Frame rest;

                more = take(from, rest) == 0 && receive_functions.more(&rest.message) != 0;
            }
            throw;
        }
    }

  private:
    /* 0, or the errno. */
    static int take(void *socket, Frame &frame)
    {
        while (receive_functions.receive(&frame.message, socket, DONT_WAIT) < 0) {
            if (errno != EINTR) {
                return errno;
            }
        }
        return 0;
    }

    /* `more`: whether the last frame that was taken is not the message's last one. */
    static nb::object receive_frames(void *socket, size_t leading, bool &more)
    {
        nb::list frames;

        do {
            nb::object made = nb::inst_alloc(nb::type<Frame>());
            auto *frame = new (nb::inst_ptr<Frame>(made)) Frame;

            nb::inst_mark_ready(made);
            const int error = take(socket, *frame);

            if (error != 0) {
                return nb::int_(error);
            }
            more = receive_functions.more(&frame->message) != 0;
            if (nb::len(frames) < leading) {
                made = nb::bytes(frame->data(), frame->size());
            }
            frames.append(made);
        } while (more);
        return frames;
    }
};

inline void bind_receiver(nb::module_ &m)
{
    nb::class_<Frame>(m, "ZmqFrame", nb::type_slots(frame_slots))
        .def("__len__", &Frame::size)
        .def("get", &Frame::get, nb::arg("what"))
        .def_prop_ro("buffer", [](nb::handle self) { return nb::steal(PyMemoryView_FromObject(self.ptr())); });
    nb::class_<Receiver>(m, "ZmqReceiver")
        .def(nb::init<uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t>(),
             nb::arg("init"), nb::arg("receive"), nb::arg("size"), nb::arg("data"), nb::arg("more"), nb::arg("get"),
             nb::arg("gets"), nb::arg("close"))
        .def("receive", &Receiver::receive, nb::arg("socket"), nb::arg("leading"));
}

} // namespace aiod_zmq

#endif

/*
 * zmq_sender.hpp - sends messages on sockets of pyzmq, large frames without a copy.
 *
 * pyzmq has a thread that gives buffers back. libzmq wakes it for each frame that is sent without a copy, and it takes the
 * GIL from the thread that works: 35 to 55 us for a frame. Here libzmq's thread puts the buffer on a list, and the next
 * send() or release() of any thread, which has the GIL anyway, empties the list.
 *
 * The functions are those of the libzmq that pyzmq has loaded, by their addresses (aiod_protocol/zmq_sending.py). So neither
 * libzmq's headers nor the library are needed to build this. Call everything with the GIL held.
 */
#ifndef AIOD_ZMQ_SENDER_HPP
#define AIOD_ZMQ_SENDER_HPP

#include <nanobind/nanobind.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace aiod_zmq
{

namespace nb = nanobind;

/* A frame of this size or more is sent without a copy, if its buffer is read-only. */
constexpr Py_ssize_t COPY_BELOW_BYTES = 64 * 1024;

/* zmq_msg_t, whose size and alignment are part of libzmq's ABI. */
union Message {
    unsigned char bytes[64];
    void *pointer;
};

constexpr int DONT_WAIT = 1; /* ZMQ_DONTWAIT, ZMQ_SNDMORE */
constexpr int MORE_FOLLOWS = 2;

/* A buffer that libzmq reads until it has sent it. */
struct Lent {
    Py_buffer view;
    Lent *next;
};

/* Buffers that libzmq has sent. One list for the process: it outlives every socket. */
inline std::atomic<Lent *> sent_buffers{nullptr};

/* Called by libzmq, mostly in a thread of its own, without the GIL. */
inline void give_back(void *, void *hint)
{
    auto *lent = static_cast<Lent *>(hint);

    lent->next = sent_buffers.load(std::memory_order_relaxed);
    while (
        !sent_buffers.compare_exchange_weak(lent->next, lent, std::memory_order_release, std::memory_order_relaxed)) {
    }
}

/* Release the buffers that were sent. Finalizers of their owners may run. */
inline void release_sent()
{
    if (sent_buffers.load(std::memory_order_relaxed) == nullptr) {
        return;
    }
    Lent *lent = sent_buffers.exchange(nullptr, std::memory_order_acquire);

    while (lent != nullptr) {
        Lent *next = lent->next;

        PyBuffer_Release(&lent->view);
        delete lent;
        lent = next;
    }
}

class Sender
{
  public:
    Sender(uintptr_t init_size_at, uintptr_t init_data_at, uintptr_t data_at, uintptr_t send_at, uintptr_t close_at)
        : init_size(reinterpret_cast<decltype(init_size)>(init_size_at)),
          init_data(reinterpret_cast<decltype(init_data)>(init_data_at)),
          data(reinterpret_cast<decltype(data)>(data_at)),
          send_message(reinterpret_cast<decltype(send_message)>(send_at)),
          close_message(reinterpret_cast<decltype(close_message)>(close_at))
    {
    }

    /*
     * Send a message of `frames`, without waiting. 0, or an errno: then nothing of it was sent, since all frames are made
     * before the first one is sent, and libzmq refuses no other: its queue is full (EAGAIN), the peer has gone
     * (EHOSTUNREACH), there is no memory (ENOMEM).
     */
    int send(uintptr_t socket, const nb::sequence &frames)
    {
        release_sent();
        Made made(*this, nb::len(frames));
        int error = 0;

        for (nb::handle frame : frames) {
            error = made.add(frame);
            if (error != 0) {
                break;
            }
        }
        if (error == 0) {
            error = made.send(reinterpret_cast<void *>(socket));
        }
        if (error != 0) {
            made.close();
            release_sent();
        }
        return error;
    }

  private:
    /* The frames of one message, which are closed unless they were sent. */
    class Made
    {
      public:
        Made(Sender &of, size_t frames) : sender(of), room(frames), messages(few)
        {
            if (frames > FEW) {
                many.reset(new (std::nothrow) Message[frames]);
                messages = many.get();
            }
        }
        Made(const Made &) = delete;
        Made &operator=(const Made &) = delete;
        ~Made()
        {
            close();
        }

        int add(nb::handle frame)
        {
            if (messages == nullptr) {
                return ENOMEM;
            }
            const int error = count < room ? sender.make(messages[count], frame) : EINVAL; /* the sequence has grown */

            count += error == 0;
            return error;
        }

        int send(void *socket)
        {
            while (sent < count) {
                const int flags = DONT_WAIT | (sent + 1 < count ? MORE_FOLLOWS : 0);

                if (sender.send_message(&messages[sent], socket, flags) >= 0) {
                    sent++;
                } else if (errno != EINTR) {
                    return errno;
                }
            }
            return 0;
        }

        void close()
        {
            while (sent < count) {
                sender.close_message(&messages[sent++]);
            }
        }

      private:
        static constexpr size_t FEW = 8;

        Sender &sender;
        const size_t room;
        size_t count = 0;
        size_t sent = 0; /* or closed */
        Message few[FEW];
        std::unique_ptr<Message[]> many;
        Message *messages;
    };

    int make(Message &message, nb::handle frame)
    {
        Py_buffer view;

        if (PyObject_GetBuffer(frame.ptr(), &view, PyBUF_SIMPLE) < 0) {
            throw nb::python_error();
        }
        if (view.len >= COPY_BELOW_BYTES && view.readonly) {
            return lend(message, view);
        }
        const int result = init_size(&message, static_cast<size_t>(view.len));

        if (result == 0 && view.len != 0) {
            std::memcpy(data(&message), view.buf, static_cast<size_t>(view.len));
        }
        PyBuffer_Release(&view);
        return result == 0 ? 0 : ENOMEM;
    }

    /* Takes the view over. */
    int lend(Message &message, const Py_buffer &view)
    {
        auto *lent = new (std::nothrow) Lent{view, nullptr};

        if (lent == nullptr) {
            Py_buffer unused = view;

            PyBuffer_Release(&unused);
            return ENOMEM;
        }
        if (init_data(&message, view.buf, static_cast<size_t>(view.len), give_back, lent) < 0) {
            PyBuffer_Release(&lent->view);
            delete lent;
            return ENOMEM;
        }
        return 0;
    }

    int (*init_size)(Message *, size_t);
    int (*init_data)(Message *, void *, size_t, void (*)(void *, void *), void *);
    void *(*data)(Message *);
    int (*send_message)(Message *, void *, int);
    int (*close_message)(Message *);
};

inline void bind_sender(nb::module_ &m)
{
    nb::class_<Sender>(m, "ZmqSender")
        .def(nb::init<uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t>(), nb::arg("init_size"),
             nb::arg("init_data"), nb::arg("data"), nb::arg("send"), nb::arg("close"))
        .def("send", &Sender::send, nb::arg("socket"), nb::arg("frames"))
        .def("release", [](const Sender &) { release_sent(); });
}

} // namespace aiod_zmq

#endif

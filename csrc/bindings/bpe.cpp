#include <pybind11/numpy.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bpe/encoder.h"
#include "bpe/pretokenize.h"
#include "bpe/trainer.h"

namespace py = pybind11;

namespace golf {
namespace {

using Ids = py::array_t<uint16_t, py::array::c_style>;

bpe::Bytes view(const py::bytes& text) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(text.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(size)};
}

// Holds its own references: the caller's list may change while the GIL is released.
struct Documents {
  explicit Documents(const py::sequence& docs) {
    owners.reserve(py::len(docs));
    views.reserve(py::len(docs));
    for (const py::handle& doc : docs) {
      if (!PyBytes_Check(doc.ptr())) throw py::type_error("documents must be bytes");
      owners.push_back(py::reinterpret_borrow<py::bytes>(doc));
      views.push_back(view(owners.back()));
    }
  }
  std::vector<py::bytes> owners;
  std::vector<bpe::Bytes> views;
};

Ids to_numpy(bpe::IdBuffer ids) {
  const auto n = static_cast<py::ssize_t>(ids.size());
  uint16_t* const data = ids.release();
  return Ids(n, data, py::capsule(data != nullptr ? data : std::malloc(1), std::free));
}

std::vector<bpe::Merge> merges_of(const Ids& pairs_N2) {
  std::vector<bpe::Merge> merges;
  const uint16_t* const p = pairs_N2.data();
  for (py::ssize_t i = 0; i < pairs_N2.size(); i += 2) merges.emplace_back(p[i], p[i + 1]);
  return merges;
}

}  // namespace

void bind_bpe(py::module_& m) {
  py::class_<bpe::Encoder>(m, "BpeEncoder")
      .def(py::init([](const Ids& pairs_N2) { return std::make_unique<bpe::Encoder>(merges_of(pairs_N2)); }))
      .def("encode",
           [](bpe::Encoder& self, const py::bytes& text) {
             const bpe::Bytes document = view(text);
             bpe::IdBuffer ids;
             {
               const py::gil_scoped_release release;
               ids = self.encode(document);
             }
             return to_numpy(std::move(ids));
           })
      .def("encode_batch",
           [](bpe::Encoder& self, const py::sequence& texts, int threads) {
             const Documents docs(texts);
             bpe::EncodedBatch batch;
             {
               const py::gil_scoped_release release;
               batch = self.encode_batch(docs.views, threads);
             }
             const py::array_t<int64_t> offsets(static_cast<py::ssize_t>(batch.offsets.size()), batch.offsets.data());
             return py::make_tuple(to_numpy(std::move(batch.ids)), offsets);
           })
      .def("decode",
           [](const bpe::Encoder& self, const Ids& ids) {
             const bpe::Vocabulary& vocabulary = self.vocabulary();
             const uint16_t* const begin = ids.data();
             const uint16_t* const end = begin + ids.size();
             size_t left = 0;
             bool known = true;
             {
               const py::gil_scoped_release release;
               for (const uint16_t* id = begin; id != end && (known = *id < vocabulary.size()); ++id)
                 left += vocabulary.length(*id);
             }
             if (!known) throw py::index_error("an id outside the vocabulary");
             py::bytes text =
                 py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(left)));
             if (!text) throw py::error_already_set();
             char* to = PyBytes_AS_STRING(text.ptr());
             const uint16_t* id = begin;
             {
               // Another thread may write to the ids meanwhile, so they are not trusted to still fit.
               const py::gil_scoped_release release;
               for (; id != end && *id < vocabulary.size() && vocabulary.length(*id) <= left; ++id) {
                 std::memcpy(to, vocabulary.bytes(*id), vocabulary.length(*id));
                 to += vocabulary.length(*id);
                 left -= vocabulary.length(*id);
               }
             }
             if (id != end || left != 0) throw std::runtime_error("the ids changed while they were decoded");
             return text;
           })
      .def("lengths", [](const bpe::Encoder& self) {
        const bpe::Vocabulary& vocabulary = self.vocabulary();
        py::array_t<int32_t> lengths(static_cast<py::ssize_t>(vocabulary.size()));
        for (uint32_t id = 0; id < vocabulary.size(); ++id)
          lengths.mutable_data()[id] = static_cast<int32_t>(vocabulary.length(id));
        return lengths;
      });

  m.attr("BPE_MAX_DOCUMENT_BYTES") = bpe::kMaxDocumentBytes;
  m.attr("BPE_MAX_TRAINING_BYTES") = bpe::kMaxTrainingBytes;

  m.def("bpe_train", [](const py::sequence& texts, size_t n_merges, int threads) {
    const Documents docs(texts);
    std::vector<bpe::Merge> merges;
    {
      const py::gil_scoped_release release;
      merges = bpe::train(docs.views, n_merges, threads);
    }
    Ids pairs_N2({static_cast<py::ssize_t>(merges.size()), py::ssize_t{2}});
    uint16_t* to = pairs_N2.mutable_data();
    for (const bpe::Merge& merge : merges) {
      *to++ = merge.first;
      *to++ = merge.second;
    }
    return pairs_N2;
  });

  m.def("bpe_split", [](const py::bytes& text) {
    const bpe::Bytes document = view(text);
    py::list pieces;
    const uint8_t* const end = document.data + document.size;
    for (const uint8_t* p = document.data; p != end;) {
      const uint8_t* const next = bpe::piece_end(p, end);
      pieces.append(py::bytes(reinterpret_cast<const char*>(p), static_cast<size_t>(next - p)));
      p = next;
    }
    return pieces;
  });
}

}  // namespace golf

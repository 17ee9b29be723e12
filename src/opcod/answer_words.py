"""The words with which a reader is told an answer, by kind, in the languages that are looked for."""

from __future__ import annotations

KINDS = {
    "A": """answer answers ans solution vote verdict key guess bet hunch spoiler psst winner sheet textbook antwort
        lösung respuesta solución réponse risposta resposta antwoord svar vastaus odpowiedź odpověď cevap yanıt
        válasz jawaban răspuns odgovor ответ ответа απάντηση תשובה התשובה الإجابة الجواب उत्तर đáp""",
    "N": """option options choice choices letter alternative alternatives possibility candidate statement capital
        opción opciones choix opzione opção optie alternativa buchstabe letra lettre вариант wariant pilihan""",
    "R": """correct right true best proper intended expected wanted official correctness richtige richtig korrekte
        korrekt richtigen correcta correcto correcte juste bonne bon giusta corretta certa correta juiste goede
        rätt riktigt oikea prawidłowa poprawna správná doğru helyes benar corect tačan правильный верный верен
        правильно верно σωστή σωστό הנכונה נכונה الصحيحة सही đúng""",
    "f": "final finale endgültige definitiva",
    "E": """is are was equals comes turns starts begins lies goes ist lautet wäre es est era è é será är je adalah
        este είναι היא הוא هي هو है""",
    "iE": "it's that's c'est",
    "Ym": "i'd you'd we'd",
    "m": "should must would will has had can cannot ought need würde sollte muss debería devrait deve",
    "e": "be been have get gets got",
    "P": """choose select pick tick go opt mark say stick switch change want prefer circle settle enter submit take
        trust respond wähle nimm nehmen elige escoge choisis choisissez scegli escolha kies välj wybierz seçin
        выбирай выберите""",
    "j": "chosen selected picked ticked gone opted marked said taken answered voted switched",
    "p": "with for to on in of out",
    "x": "after before between following preceding from",
    "z": "rhymes alphabet",
    "G": "not neither isn't can't",
    "V": "rule eliminate exclude discard dismiss cross",
    "W": "wrong incorrect false excluded impossible eliminated falsch incorrecta fausse",
    "n": "and or nor y und et и",
    "B": "but except other besides",
    "T": "all every everything everyone any anything each",
    "H": "hence therefore thus so then also luego donc rightarrow portanto",
    "C": """because since given when if once due while where which though although denn weil porque car parce perche
        omdat потому""",
    "q": "as",
    "Y": "i you we ich du tu nous vous",
    "y": "your peer's",
    "i": "it that this ce",
    "K": "leaves leave left remains remaining remain survives survive",
    "l": "fits works holds",
    "k": """makes points point matches match means suggests agree agrees says give gives reads lists shows suspect
        corresponds""",
    "o": "only",
    "h": "what",
    "t": "why think believe sure reckon",
    "#": "number no nr",
    "O": """first second third fourth fifth sixth last penultimate top bottom middle former latter 1st 2nd 3rd 4th
        5th 6th erste zweite dritte vierte letzte primera segunda tercera cuarta última première deuxième
        troisième quatrième dernière seconde prima seconda terza quarta primeira terceira вторая первая третья""",
    "U": "one ones two three four five six",
    "S": "bee cee dee alfa alpha bravo charlie delta echo foxtrot beta gamma",
    "M": "ii iii iv vi vii viii",
    "v": "value result formula",
    "": """the a an la el le les lo il der die das den dem de det het een ein eine os um uma my our its his clearly
        indeed simply course obviously definitely probably likely actually just surely certainly really most
        fact here safely rather than i'm please que qui o η there án yang""",
}
"""Kind -> its words; those of the kind "" are passed over. See `opcod.reveals` for what the kinds are taken for."""

UNSPACED_KINDS = {
    "A": "答案 答え 正解 正答 정답 คำตอบ",
    "R": "正确 正確 正しい ถูกต้อง",
    "N": "选项 選項 選択肢",
    "E": "是 为 為 は คือ",
    "P": "选择 应选 选 選",
    "O": "第一个 第二个 第三个 第四个 最后一个",
    "": "应该 应該 的 です 은 이 입니다 ที่",
}
"""The same for scripts that are written without blanks between words."""

UNSPACED = "\u0e01-\u0e5b\u1100-\u11ff\u2e80-\u9fff"
"""The characters of those scripts, as a range within a regular expression; Hangul in its single letters."""
